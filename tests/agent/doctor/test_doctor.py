"""The doctor: what it says of boards with one fault each, and that it says nothing of sound ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from edgewright.address import Address
from edgewright.dsse import key_id
from edgewright.trust.keys import load_trust
from edgewright_agent.cli import app
from edgewright_agent.doctor import checks
from edgewright_agent.doctor import engines as engine_checks
from edgewright_agent.doctor.checks import examine
from edgewright_agent.doctor.engines import TRIALS, KernelRun, judge, run_kernel
from edgewright_agent.doctor.finding import Finding, Severity, Subject
from edgewright_agent.doctor.report import lines
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.trust import Trust
from edgewright_builder.keys import trust_issuer
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import public_pem
from edgewright_profiles import load_profile
from tests.fixtures.boards import write, write_board
from tests.support.artifacts import RELEASE_KEY
from tests.support.llama_server import write_server
from tests.support.trust_documents import ISSUED, NEW_RELEASE, ROOT, revocation, signed, signers

NOW = datetime.now(timezone.utc).timestamp()
CGROUPS = "#subsys_name hierarchy num_cgroups enabled\ncpu 0 100 1\nmemory 0 100 1"
UNIFIED = "sys/fs/cgroup/cgroup.controllers"


def subject(root: Path, profile: str = "jetson-agx-orin-64gb", **fields: object) -> Subject:
    return replace(Subject(root=root, profile=load_profile(profile), start_engines=False), **fields)  # type: ignore[arg-type]


def found(name: str, what: Subject) -> Finding:
    finding = checks.CHECKS[name](what)
    assert finding is not None
    assert bool(finding.remedy) == (finding.result is not Severity.OK)
    return finding


NOBODY = 65534
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can own a file for root and become somebody else"
)


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """As a user without rights; who runs the tests as one is it already."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can reach: those above `tmp_path` are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    create_credentials(folder)
    return folder


def tls(keys: Path) -> TlsFiles:
    return TlsFiles(keys / "agent.pem", keys / "agent.key", keys / "ca.pem")


# A board, file by file


def test_a_sound_board_has_no_problem(tmp_path: Path) -> None:
    root = write_board("agx-orin", tmp_path)
    write(root, "proc/cgroups", CGROUPS)
    write(root, UNIFIED, "cpuset cpu io memory pids")
    write(root, "proc/swaps", "Filename Type Size Used Priority\n/swap.img file 16777212 0 -2")
    findings = examine(subject(root))
    assert {name for name, each in findings.items() if each.result is Severity.PROBLEM} == set()
    for name in (
        "profile",
        "memory size",
        "Jetson Linux",
        "power mode",
        "power sensor",
        "swap",
        "memory cgroup",
    ):
        assert findings[name].result is Severity.OK, findings[name]


@pytest.mark.parametrize(
    ("board", "profile", "check", "result", "says", "remedy"),
    [
        ("orin-nano", "jetson-orin-nano-8gb", "Jetson Linux", "problem", "36.4.7.*error 12", "apt"),
        ("orin-nano", "jetson-agx-orin-64gb", "profile", "problem", "jetson-orin-nano-8gb", "--profile"),
        ("orin-nano", "jetson-orin-nano-8gb", "power mode", "ok", "MAXN_SUPER", ""),
        ("nano-l4t32", "jetson-nano-4gb", "power mode", "warning", "5W; MAXN", "nvpmodel -m 0"),
        ("x86-rapl", "jetson-agx-orin-64gb", "profile", "warning", "Nothing on this board says", "probe"),
        ("raspberry-pi-5", "raspberry-pi-5-16gb", "profile", "problem", "raspberry-pi-5-8gb", "--profile"),
        ("raspberry-pi-5", "jetson-orin-nano-8gb", "power sensor", "warning", "ina3221.*not there", "kernel"),
    ],
)
def test_what_a_recorded_board_suffers_from(
    tmp_path: Path, board: str, profile: str, check: str, result: str, says: str, remedy: str
) -> None:
    finding = found(check, subject(write_board(board, tmp_path), profile))
    assert finding.result is Severity(result)
    assert re.search(says, finding.sentence), finding.sentence
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("check", "path", "content", "says"),
    [
        ("memory size", "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB", "has 8789 MiB"),
        (
            "memory",
            "proc/meminfo",
            "MemTotal: 65000000 kB\nMemAvailable: 8000000 kB",
            "7.63 GiB are available",
        ),
        ("swap", "proc/swaps", "Filename Type Size\n/dev/zram0 partition 635248 0 5", "zram swap .* 620 MiB"),
        ("swap", "proc/swaps", "Filename Type Size\n/dev/mmcblk0p2 partition 635248 0 5", "SD card"),
        ("memory cgroup", UNIFIED, "cpuset cpu io pids", "memory cgroup is off"),
        ("Jetson Linux", "etc/nv_tegra_release", "# a board of one's own", "does not say"),
        ("power sensor", "sys/class/hwmon/hwmon3/in1_label", "VDD_ELSE", "not VDD_GPU_SOC"),
    ],
)
def test_one_fault_one_warning(tmp_path: Path, check: str, path: str, content: str, says: str) -> None:
    root = write_board("agx-orin", tmp_path)
    write(root, "proc/cgroups", CGROUPS)
    write(root, path, content)
    finding = found(check, subject(root))
    assert finding.result is Severity.WARNING
    assert re.search(says, finding.sentence), finding.sentence


def test_a_power_mode_is_not_called_the_highest_where_nobody_knows(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0001")
    modes = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n"
    write(tmp_path, "etc/nvpmodel.conf", modes)
    finding = found("power mode", Subject(root=tmp_path))
    assert finding == Finding(
        Severity.OK, "The power mode is 7W; which of 15W, 7W is the highest is not known."
    )


def test_a_desktop_is_told_to_go(tmp_path: Path) -> None:
    target = tmp_path / "etc/systemd/system/default.target"
    target.parent.mkdir(parents=True)
    target.symlink_to("/lib/systemd/system/graphical.target")
    assert "set-default multi-user.target" in found("desktop", subject(tmp_path)).remedy
    target.unlink()
    target.symlink_to("/lib/systemd/system/multi-user.target")
    assert found("desktop", subject(tmp_path)).result is Severity.OK


# Clock, certificates, files


def test_a_clock_that_was_never_set_is_a_problem(tmp_path: Path, keys: Path) -> None:
    what = subject(tmp_path, tls=tls(keys), clock=lambda: 86400.0)
    assert "says 1970-01-02" in found("clock", what).sentence
    assert "timedatectl" in found("clock", what).remedy
    assert found("certificates", what).result is Severity.PROBLEM
    assert found("clock", subject(tmp_path, clock=lambda: NOW)).result is Severity.OK


@pytest.mark.parametrize(
    ("days", "result", "says"),
    [
        (1, "ok", "valid"),
        (1810, "warning", "only"),
        (1830, "problem", "was valid until"),
        (-2, "problem", "valid from"),
    ],
)
def test_certificates_are_looked_at_with_the_boards_clock(
    tmp_path: Path, keys: Path, days: int, result: str, says: str
) -> None:
    what = subject(tmp_path, tls=tls(keys), clock=lambda: NOW + days * 86400)
    assert found("certificates", what).result is Severity(result)
    assert says in found("certificates", what).sentence


def test_an_expiring_trust_document_is_warned_of(tmp_path: Path, keys: Path) -> None:
    assert found("trust", subject(tmp_path, trust=(keys / "release.pub",))).result is Severity.OK
    create_credentials(tmp_path / "own")
    document = trust_issuer.renew(tmp_path / "own", [], 60)
    assert load_trust([document]) is not None
    for days, result in ((1, "ok"), (40, "warning"), (61, "problem")):
        what = subject(tmp_path, trust=(document,), clock=lambda days=days: NOW + days * 86400)
        assert found("trust", what).result is Severity(result)
    assert found("trust", subject(tmp_path, trust=(tmp_path / "none.pub",))).result is Severity.PROBLEM


def test_files_that_do_not_belong_together_or_to_the_board_are_named(tmp_path: Path, keys: Path) -> None:
    good = subject(tmp_path, tls=tls(keys))
    assert found("tls files", good).result is Severity.OK
    wrong = subject(tmp_path, tls=replace(tls(keys), key=keys / "deployer.key"))
    assert "is not the key of the certificate" in found("tls files", wrong).sentence
    assert "ca.key, release.key, root.key, deployer.key" in found("secrets", good).sentence


def test_a_board_without_certificate_or_key_is_told_what_it_lacks(tmp_path: Path) -> None:
    bare = subject(tmp_path)
    assert "No certificate is configured" in found("tls files", bare).sentence
    assert "refuse every push" in found("trust", bare).sentence


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path, keys: Path) -> None:
    absent = subject(tmp_path, tls=replace(tls(keys), certificate=tmp_path / "agent.pem"))
    assert found("certificates", absent).sentence.endswith(
        "agent.pem can't be read: No such file or directory."
    )


def test_a_key_that_others_can_read_is_warned_of(tmp_path: Path, keys: Path) -> None:
    key = tmp_path / "agent.key"
    key.write_bytes((keys / "agent.key").read_bytes())
    key.chmod(0o644)
    what = subject(tmp_path, tls=replace(tls(keys), key=key))
    assert "mode 0644" in found("key mode", what).sentence
    key.chmod(0o600)
    assert found("key mode", what).result is Severity.OK
    assert found("secrets", what).result is Severity.OK


# What is root's, as the systemd unit has it


def roots_own(root: Path, keys: Path, folder_mode: int) -> Subject:
    """A board whose configuration only root may read."""
    folder = root / "etc" / "edgewright"
    folder.mkdir(parents=True)
    for name in ("agent.pem", "agent.key", "ca.pem", "release.pub"):
        (folder / name).write_bytes((keys / name).read_bytes())
        (folder / name).chmod(0o600)
    folder.chmod(folder_mode)
    return subject(root, tls=tls(folder), trust=(folder / "release.pub",))


@as_root
@pytest.mark.parametrize("folder_mode", [0o755, 0o700])
def test_what_only_root_may_read_is_looked_at_as_root(
    open_folder: Path, keys: Path, folder_mode: int
) -> None:
    what = roots_own(open_folder, keys, folder_mode)
    with somebody_else():
        findings = examine(what)
    for name in ("certificates", "trust", "tls files"):
        assert findings[name].result is Severity.WARNING
        assert findings[name].sentence.startswith(f"This user may not read {open_folder}/etc/edgewright/")
        assert "`sudo edgewright-agent doctor …`" in findings[name].remedy
    assert not any(each.result is Severity.PROBLEM for each in findings.values())
    assert not any("could not be checked" in each.sentence for each in findings.values())
    findings = examine(what)
    for name in ("certificates", "trust", "tls files", "key mode", "secrets"):
        assert findings[name].result is Severity.OK


@as_root
def test_the_command_looks_for_what_it_may_not_see(
    open_folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots_own(open_folder, keys, 0o700)
    monkeypatch.setattr("edgewright_agent.doctor.command.CONFIGURATION", open_folder / "etc" / "edgewright")
    options = ["doctor", "--root", str(open_folder), "--store", str(open_folder), "--no-engines", "--json"]
    with somebody_else():
        result = CliRunner().invoke(app, options)
    rows = {row["check"]: row for row in json.loads(result.stdout)["findings"]}
    assert [rows[name]["result"] for name in ("certificates", "trust", "tls files")] == ["warning"] * 3


@pytest.mark.parametrize(
    ("version", "environment", "result"),
    [
        (245, "EDGEWRIGHT_PROFILE=x", "warning"),
        (237, "", "warning"),
        (245, "EDGEWRIGHT_PROFILE=x\nCREDENTIALS_DIRECTORY=/etc/edgewright", "ok"),
        (249, "", "ok"),
    ],
)
def test_a_systemd_that_knows_no_credentials_is_told_where_they_are(
    tmp_path: Path, version: int, environment: str, result: str
) -> None:
    assert checks.CHECKS["systemd"](subject(tmp_path)) is None
    write(tmp_path, f"lib/systemd/libsystemd-shared-{version}.so", "")
    write(tmp_path, "etc/edgewright/agent.env", environment)
    finding = found("systemd", subject(tmp_path))
    assert finding.result is Severity(result)
    assert f"systemd {version}" in finding.sentence
    assert finding.result is Severity.OK or "CREDENTIALS_DIRECTORY=/etc/edgewright" in finding.remedy


# Trust


def held(tmp_path: Path, **fields: Any) -> Subject:
    """A board that was started with `--trust release.pub` and sent trust document 1 since."""
    (tmp_path / "release.pub").write_bytes(public_pem(RELEASE_KEY))
    folder, now = Layout(tmp_path / "store").trust, ISSUED.timestamp()
    base = Trust(load_trust([tmp_path / "release.pub"]), folder, clock=lambda: now)
    base.update([signed(1, (ROOT, RELEASE_KEY), **fields)])
    return subject(tmp_path, store=tmp_path / "store", trust=(tmp_path / "release.pub",))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_store_s_trust_document_counts_and_is_not_touched(tmp_path: Path) -> None:
    what = held(tmp_path, expires=ISSUED + timedelta(days=365))
    folder = tmp_path / "store" / "trust"
    (folder / ".tmp-00000002.json").write_bytes(b"an agent is writing it")
    before = contents(folder)
    for days, result, says in (
        (1, "ok", "Trust document 1 is valid until 2027-11-01"),
        (340, "warning", "expires on 2027-11-01"),
        (366, "problem", "expired on 2027-11-01"),
    ):
        now = (ISSUED + timedelta(days=days)).timestamp()
        finding = found("trust", replace(what, clock=partial(float, now)))
        assert (finding.result, says in finding.sentence) == (Severity(result), True), finding
    assert contents(folder) == before


def test_a_damaged_trust_document_in_the_store_is_a_problem(tmp_path: Path) -> None:
    what = held(tmp_path)
    assert found("trust", what).result is Severity.OK
    (tmp_path / "store" / "trust" / "00000001.json").write_bytes(b"{}")
    finding = found("trust", what)
    assert finding.result is Severity.PROBLEM
    assert "00000001.json is damaged" in finding.sentence


def test_a_key_of_the_command_line_that_the_store_s_document_revokes_is_named(tmp_path: Path) -> None:
    what = held(tmp_path, release=signers(RELEASE_KEY, NEW_RELEASE), revoked=[revocation()])
    finding = found("trust", what)
    assert finding.result is Severity.WARNING
    assert f"--trust names the key {key_id(RELEASE_KEY.public_key())[:12]}" in finding.sentence
    assert f"need 1 of the keys {key_id(NEW_RELEASE.public_key())[:12]}." in finding.sentence


# Disk


def test_a_store_on_a_disk_that_forgets_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "proc/mounts", f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path.resolve()} tmpfs rw 0 0")
    finding = found("file system", subject(tmp_path, store=tmp_path / "store"))
    assert finding.result is Severity.PROBLEM
    assert "gone at the next boot" in finding.sentence


def test_a_store_that_is_to_be_is_looked_for_where_it_will_be(tmp_path: Path) -> None:
    what = subject(tmp_path, store=tmp_path / "not" / "yet" / "there")
    assert found("store", what).result is Severity.OK
    assert "is not there yet and can be made" in found("store", what).sentence
    assert checks.CHECKS["disk speed"](what) is None  # not tried in what may be anybody's folder
    assert not (tmp_path / "not").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_can_not_be_made_is_asked_for_and_no_folder_above_it(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    store = open_folder / "edgewright" / "store"
    with somebody_else():
        finding = found("store", subject(open_folder, store=store))
    assert finding.result is Severity.PROBLEM
    assert f"{store} is not there yet, and this user can't make it" in finding.sentence
    assert f"`sudo install -d -o USER -m 700 {store}`" in finding.remedy
    assert "chown" not in finding.remedy


@as_root
def test_root_asks_whether_the_store_s_user_may_write_it(open_folder: Path) -> None:
    store = open_folder / "store"
    store.mkdir(mode=0o700)
    os.chown(store, NOBODY, NOBODY)
    finding = found("store", subject(open_folder, store=store))
    assert finding == Finding(Severity.OK, f"{store} can be written by its user, {NOBODY}, and fsync works.")
    assert found("disk speed", subject(open_folder, store=store)).sentence.startswith("The disk writes")
    assert list(store.iterdir()) == []
    store.chmod(0o500)
    finding = found("store", subject(open_folder, store=store))
    assert (finding.result, "mode is 0500" in finding.sentence) == (Severity.PROBLEM, True)
    assert finding.remedy == f"`sudo chmod 700 {store}`"


@pytest.mark.parametrize(
    ("free_bytes", "inodes", "result", "says"),
    [
        (2**28, 10**6, "problem", "256 MiB are free"),
        (2**30, 10**6, "warning", "less than most models take"),
        (2**34, 12, "problem", "12 inodes are left"),
        (2**34, 10**6, "ok", "16.0 GiB are free"),
        (2**34, 0, "ok", "16.0 GiB are free"),  # btrfs counts no inodes
    ],
)
def test_a_disk_without_space_or_inodes_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, inodes: int, result: str, says: str
) -> None:
    found_there = SimpleNamespace(f_bavail=free_bytes // 4096, f_frsize=4096, f_favail=inodes)
    monkeypatch.setattr("edgewright_agent.doctor.disk.os.statvfs", lambda _: found_there)
    finding = found("disk space", subject(tmp_path, store=tmp_path))
    assert (finding.result, says in finding.sentence) == (Severity(result), True)


def test_what_was_found_corrupt_is_a_problem(tmp_path: Path) -> None:
    what = subject(tmp_path, store=tmp_path)
    assert found("quarantine", what).result is Severity.OK
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / ("ab" * 32 + ".1")).write_bytes(b"rot")
    finding = found("quarantine", what)
    assert finding.result is Severity.PROBLEM
    assert "1 stored file" in finding.sentence
    assert "replace it" in finding.remedy


def test_a_read_only_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("edgewright_agent.doctor.disk.FileSystem.create", refuse)
    finding = found("store", subject(tmp_path, store=tmp_path))
    assert "is read-only" in finding.sentence
    assert "dmesg" in finding.remedy


@pytest.mark.parametrize("measured", [(1e6, 0.01), (1e8, 2.0)])
def test_a_slow_disk_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: tuple[float, float]
) -> None:
    monkeypatch.setattr("edgewright_agent.doctor.disk._measure", lambda _: measured)
    assert found("disk speed", subject(tmp_path, store=tmp_path)).result is Severity.WARNING


# Engines


def test_onnxruntime_runs_a_kernel_here(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the engine is an extra")
    finding = found("onnxruntime-genai", subject(tmp_path, start_engines=True))
    assert finding.result is Severity.OK, finding
    assert "4-bit product" in finding.sentence


def test_an_engine_that_is_installed_and_can_not_be_imported_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "raise ImportError('libcudart.so.12: cannot open shared object')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = judge("ONNX Runtime", run_kernel([sys.executable, str(TRIALS / "onnx_kernel.py")]))
    assert finding.result is Severity.PROBLEM
    assert "libcudart.so.12" in finding.sentence


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (f"import os; os.kill(os.getpid(), {signal.SIGILL.value})", "another CPU"),
        (f"import os; os.kill(os.getpid(), {signal.SIGSEGV.value})", "died of SIGSEGV"),
        (
            "raise SystemExit('CUDA error: no kernel image is available for execution')",
            "no code for this GPU",
        ),
        ("raise SystemExit(3)", "it said nothing"),
    ],
)
def test_how_a_kernel_fails_is_said_in_words(program: str, says: str) -> None:
    finding = judge("An engine", run_kernel([sys.executable, "-c", program]))
    assert finding.result is Severity.PROBLEM
    assert says in finding.sentence


def test_an_engine_that_hangs_is_a_problem() -> None:
    assert "did not finish" in judge("An engine", KernelRun(None, "")).sentence
    assert judge("An engine", run_kernel(["/nowhere/python"])).result is Severity.PROBLEM


@pytest.mark.parametrize(
    ("wheel", "profile", "result"),
    [
        ("onnxruntime-gpu", "jetson-orin-nano-8gb", "problem"),
        ("onnxruntime-genai-cuda", "jetson-agx-thor-t5000", "problem"),
        ("none", "jetson-orin-nano-8gb", "ok"),
    ],
)
def test_a_cuda_wheel_without_code_for_this_gpu_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: str, profile: str, result: str
) -> None:
    monkeypatch.setattr(engine_checks, "_installed", lambda name: "1.31.1" if name == wheel else None)
    finding = found("CUDA wheels", subject(tmp_path, profile))
    assert finding.result is Severity(result)


# The rest


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        assert "is in use" in found("port", subject(tmp_path, listen=address)).sentence
    assert found("port", subject(tmp_path, listen=Address("192.0.2.1", 7443))).result is Severity.PROBLEM


def test_a_check_that_breaks_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Subject) -> Finding:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(checks.CHECKS, "clock", broken)
    findings = examine(subject(tmp_path, store=tmp_path))
    assert "could not be checked" in findings["clock"].sentence
    assert findings["disk space"].result is not None


def test_no_file_of_a_board_makes_the_doctor_stumble(tmp_path: Path) -> None:
    for number, board in enumerate(("orin-nano", "thor", "x86-rapl")):
        root = write_board(board, tmp_path / str(number))
        for path in [path for path in root.rglob("*") if path.is_file()]:
            path.write_bytes(b"\xff\x00garbage\n" * 3)
        findings = examine(subject(root))
        assert not any("could not be checked" in each.sentence for each in findings.values())


def test_the_command_prints_words_or_json_and_exits_by_what_it_found(tmp_path: Path) -> None:
    board = write_board("orin-nano", tmp_path / "board")
    options = [
        "doctor",
        "--root",
        str(board),
        "--store",
        str(tmp_path),
        "--no-engines",
        "--listen",
        "127.0.0.1:0",
    ]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 1
    assert "problem Jetson Linux" in result.stdout
    assert "→ `sudo apt update" in result.stdout
    result = CliRunner().invoke(app, [*options, "--json"])
    document = json.loads(result.stdout)
    assert document["healthy"] is False
    assert {row["result"] for row in document["findings"]} >= {"ok", "problem"}
    write(board, "etc/nv_tegra_release", "# R36 (release), REVISION: 5.0, GCID: 1")
    assert CliRunner().invoke(app, options).exit_code == 0


def test_the_report_is_one_line_a_finding_and_one_a_remedy() -> None:
    findings = {
        "clock": Finding(Severity.OK, "It is now."),
        "disk": Finding(Severity.PROBLEM, "Full.", "Empty it."),
    }
    assert [line for _, line in lines(findings)] == [
        "ok      clock  It is now.",
        "problem disk   Full.",
        "               → Empty it.",
        "1 ok, 0 warnings, 1 problem",
    ]


def test_a_llama_server_of_the_user_s_own_is_judged_by_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_LLAMA_SERVER", str(write_server(tmp_path)))
    finding = found("llama.cpp", subject(tmp_path))
    assert finding.result is Severity.OK
    assert "is llama.cpp b11549 and knows every flag" in finding.sentence
    old = write_server(tmp_path, version="4100", without="--min-p")
    monkeypatch.setenv("EDGEWRIGHT_LLAMA_SERVER", str(old))
    finding = found("llama.cpp", subject(tmp_path))
    assert finding.result is Severity.PROBLEM
    assert "(llama.cpp b4100) is too old: it does not know --min-p" in finding.sentence


def test_the_package_s_llama_cpp_is_loaded_and_says_what_it_computes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEWRIGHT_LLAMA_SERVER", raising=False)
    finding = found("llama.cpp", subject(tmp_path, start_engines=True))
    assert finding.result is Severity.OK, finding
    assert "xllamacpp" in finding.sentence
