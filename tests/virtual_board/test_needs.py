"""Whatever the host lacks is one sentence that says what to do; what is built is built again only where it changed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from virtual_board.agent import Agent
from virtual_board.command import main
from virtual_board.machine import Machine, has_ended

from edgewright.sizes import parse_bytes
from virtual_board import arm, build, needs, settings, wheels

Usage = shutil._ntuple_diskusage


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_VIRTUAL_BOARD", str(tmp_path / "cache"))


def lacks() -> str:
    with pytest.raises(needs.NeedError) as refused:
        needs.check_needs()
    return str(refused.value)


@pytest.fixture
def _has_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(needs, "PROGRAMS", {})
    monkeypatch.setattr(needs, "_which", lambda program: program)
    monkeypatch.setattr(needs, "BINFMT", tmp_path)
    monkeypatch.setattr(needs, "_available_mib", lambda: 8000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**40))


@pytest.mark.usefixtures("_has_everything")
def test_a_host_that_has_everything_passes() -> None:
    needs.check_needs()


@pytest.mark.usefixtures("_has_everything")
def test_missing_programs_are_named_as_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        needs, "PROGRAMS", {"qemu-system-aarch64": "qemu-system-arm", "mmdebstrap": "mmdebstrap"}
    )
    monkeypatch.setattr(needs, "_which", lambda program: None)
    assert "sudo apt install mmdebstrap qemu-system-arm" in lacks()


def test_a_command_names_the_packages_that_it_alone_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_which", lambda program: None)
    with pytest.raises(needs.NeedError, match=r"sudo apt install f2fs-tools qemu-user-static$"):
        needs.check_programs("mkfs.f2fs", "qemu-aarch64-static")


@pytest.mark.usefixtures("_has_everything")
def test_a_kernel_that_runs_no_arm_programs_is_told_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(needs, "BINFMT", tmp_path / "none")
    assert "sudo update-binfmts --enable qemu-aarch64" in lacks()


@pytest.mark.usefixtures("_has_everything")
def test_a_full_disk_is_told_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 2**30))
    assert "1.0 GiB free" in lacks()


@pytest.mark.usefixtures("_has_everything")
def test_too_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_available_mib", lambda: 700)
    assert "700 MiB of memory are available" in lacks()


def test_a_lack_ends_a_command_with_one_sentence_and_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["virtual-board", "trial", str(tmp_path / "no-artifact")])
    assert main() == 3
    assert "make demo" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sensors orin", "memory 7b", "wheels 2.7"])
def test_an_unknown_name_is_refused_with_those_that_are_known(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["virtual-board", *command.split()])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert "is not known; choose from" in capsys.readouterr().err


def test_a_changed_source_is_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in build.PRODUCT:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    (tmp_path / "agent/a.py").write_text("1", encoding="ascii")
    first = build.sources_digest(build.PRODUCT)
    assert build.sources_digest(build.PRODUCT) == first
    (tmp_path / "agent/a.py").write_text("2", encoding="ascii")
    assert build.sources_digest(build.PRODUCT) != first


def test_pip_is_asked_for_wheels_of_the_boards_python_and_no_newer_glibc() -> None:
    options = wheels.for_board("3.10")  # JetPack 6 is an Ubuntu 22.04, of glibc 2.35
    assert "--only-binary=:all:" in options
    assert "--platform=manylinux_2_35_aarch64" in options
    assert "--platform=manylinux_2_36_aarch64" not in options


def test_the_emulated_processors_say_whether_they_have_dot_products() -> None:
    assert "asimddp" in arm.core("cortex-a76", 0)
    assert "asimddp" not in arm.core("cortex-a72", 0)
    assert "CPU part\t: 0xd08" in arm.core("cortex-a72", 1)


def test_the_board_is_reached_on_the_loopback_alone(tmp_path: Path) -> None:
    machine = Machine(settings.Parts(tmp_path), tmp_path)
    (tmp_path / "kernel/boot").mkdir(parents=True)
    (tmp_path / "kernel/boot/vmlinuz-6.1.0-1-arm64").touch()
    command = machine._command()
    forwards = [word for word in command if "hostfwd" in word]
    assert forwards == [f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{machine.port}-:7443"]
    assert Agent(machine, tmp_path).address == f"127.0.0.1:{machine.port}"


@pytest.mark.parametrize("command", ["shell true", "cut", "off"])
def test_without_a_board_it_is_said_at_once_how_to_boot_one(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    board = tmp_path / "cache/board"
    board.mkdir(parents=True)
    (board / "pid").write_text(
        f"{os.getpid()}", encoding="ascii"
    )  # of a board that is gone; another has its number
    monkeypatch.setattr("sys.argv", ["virtual-board", *command.split()])
    assert main() == 3
    assert "scripts/virtual-board boot" in capsys.readouterr().err


def test_the_disks_of_a_board_that_runs_are_not_made_anew(tmp_path: Path) -> None:
    machine = Machine(settings.Parts(tmp_path), tmp_path / "board")
    machine.folder.mkdir()
    pretended = ["sh", "-c", "sleep 60 & wait", f"path={machine.folder / 'shell'}"]
    with subprocess.Popen(pretended, start_new_session=True) as process:
        try:
            (machine.folder / "pid").write_text(f"{process.pid}", encoding="ascii")
            while not machine.is_running():  # the kernel shows its command line a moment later
                time.sleep(0.01)
            with pytest.raises(needs.NeedError, match="runs already"):
                machine.prepare()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert not machine.is_running()


def test_the_agents_budget_leaves_the_board_some_of_its_memory() -> None:
    assert parse_bytes(settings.BUDGET) <= settings.MEMORY_MIB * 2**20 // 2


def test_a_killed_process_has_ended_when_it_is_a_zombie_and_not_before() -> None:
    """Its command line is gone earlier, while it still holds the locks of its disks."""
    process = subprocess.Popen(["sleep", "60"])
    assert not has_ended(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(process.pid)
    process.wait()
    assert has_ended(process.pid)
