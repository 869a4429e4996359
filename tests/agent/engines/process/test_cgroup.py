"""An engine's memory limit: recorded trees of v1 and v2, and the real kernel where this machine allows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright_agent.engines import DeathCause
from edgewright_agent.engines.process import cgroup, memory_limit
from edgewright_agent.engines.process.cgroup import enforcement, find_parent, make_engine_cgroup
from edgewright_agent.engines.process.death import classify
from edgewright_agent.engines.process.process import EngineProcess

MIB = 2**20
TAKES_300_MIB = "import sys, time; data = bytearray(300 * 2**20); print(len(data), flush=True)"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


@pytest.fixture
def v2(tmp_path: Path) -> tuple[Path, Path]:
    """JetPack 6 and 7, in a systemd service with Delegate=memory."""
    unit = "system.slice/edgewright-agent.service"
    root = tree(tmp_path / "fs", {
        f"{unit}/cgroup.controllers": "memory pids\n", f"{unit}/cgroup.subtree_control": "\n",
        f"{unit}/cgroup.procs": "", f"{unit}/cgroup.type": "domain\n",
    })  # fmt: skip
    own = tree(tmp_path / "proc", {"cgroup": f"0::/{unit}\n"}) / "cgroup"
    return root, own


@pytest.fixture
def v1(tmp_path: Path) -> tuple[Path, Path]:
    """JetPack 4 and 5: one hierarchy a controller, and an empty v2 one beside them."""
    unit = "system.slice/edgewright-agent.service"
    root = tree(tmp_path / "fs", {f"memory/{unit}/memory.limit_in_bytes": "9223372036854771712\n"})
    lines = f"5:pids:/{unit}\n4:memory:/{unit}\n0::/{unit}\n"
    return root, tree(tmp_path / "proc", {"cgroup": lines}) / "cgroup"


def test_v2_limits_memory_and_swap_and_kills_the_whole_group(v2: tuple[Path, Path]) -> None:
    group = make_engine_cgroup(512 * MIB, root=v2[0], own=v2[1])
    assert group.version == 2
    written = {file.name: file.read_text(encoding="ascii") for file in group.folder.iterdir()}
    assert written == {"memory.max": str(512 * MIB), "memory.swap.max": "0", "memory.oom.group": "1"}
    assert (group.folder.parent / "cgroup.subtree_control").read_text(encoding="ascii") == "+memory"


def test_v2_lets_the_agent_out_of_the_way_of_its_engines(v2: tuple[Path, Path]) -> None:
    root, own = v2
    unit = root / "system.slice/edgewright-agent.service"
    (unit / "cgroup.procs").write_text(f"{os.getpid()}\n", encoding="ascii")
    first = make_engine_cgroup(MIB, root=root, own=own)
    assert (unit / "agent" / "cgroup.procs").read_text(encoding="ascii") == str(os.getpid())
    own.write_text(
        f"0::/{unit.relative_to(root)}/agent\n", encoding="ascii"
    )  # where the agent is from now on
    tree(unit / "agent", {"cgroup.controllers": "memory pids\n"})
    assert make_engine_cgroup(MIB, root=root, own=own).folder.parent == first.folder.parent == unit


def test_a_process_that_is_not_ours_is_not_moved_and_the_reason_names_it(v2: tuple[Path, Path]) -> None:
    root, own = v2
    unit = root / "system.slice/edgewright-agent.service"
    (unit / "cgroup.procs").write_text(f"1\n{os.getpid()}\n", encoding="ascii")
    with pytest.raises(OSError, match="holds other processes too, such as 1"):
        make_engine_cgroup(MIB, root=root, own=own)
    found = enforcement(root, own)
    assert not found.available
    assert "such as 1" in found.detail
    assert "Delegate=memory" in found.detail
    assert not (unit / "agent").exists()


def test_asking_whether_a_limit_can_be_set_changes_nothing(v2: tuple[Path, Path]) -> None:
    root, own = v2
    unit = root / "system.slice/edgewright-agent.service"
    (unit / "cgroup.procs").write_text(f"{os.getpid()}\n", encoding="ascii")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert enforcement(root, own).available
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_in_the_root_of_the_hierarchy_nobody_is_moved(tmp_path: Path) -> None:
    root = tree(tmp_path / "fs", {
        "cgroup.controllers": "memory pids\n", "cgroup.subtree_control": "\n", "cgroup.procs": "1\n2\n",
    })  # fmt: skip
    own = tree(tmp_path / "proc", {"cgroup": "0::/\n"}) / "cgroup"
    assert enforcement(root, own).available
    assert make_engine_cgroup(MIB, root=root, own=own).folder.parent == root
    assert not (root / "agent").exists()


def test_a_write_that_fails_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cgroup\.procs"):
        cgroup._write(tmp_path / "nowhere/cgroup.procs", "1")


def test_v1_is_used_where_the_host_mounts_that(v1: tuple[Path, Path]) -> None:
    group = make_engine_cgroup(512 * MIB, root=v1[0], own=v1[1])
    assert group.version == 1
    assert group.folder.parent == v1[0] / "memory/system.slice/edgewright-agent.service"
    for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        assert (group.folder / name).read_text(encoding="ascii") == str(512 * MIB)


@pytest.mark.parametrize(
    ("version", "files"),
    [
        (1, {"memory.max_usage_in_bytes": "77\n"}),
        (2, {"memory.peak": "77\n"}),
    ],
)
def test_the_peak_is_read_in_either_version(tmp_path: Path, version: int, files: dict[str, str]) -> None:
    group = cgroup.EngineCgroup(tree(tmp_path, files), version)
    assert group.peak_bytes() == 77


def test_an_old_kernel_without_a_peak_says_nothing(tmp_path: Path) -> None:
    group = cgroup.EngineCgroup(tmp_path, 2)
    assert group.peak_bytes() is None


def test_where_no_limit_can_be_set_the_reason_is_given(tmp_path: Path) -> None:
    own = tree(tmp_path, {"cgroup": "0::/user.slice\n"}) / "cgroup"
    found = enforcement(tmp_path / "nothing", own)
    assert not found.available
    assert "no memory controller is mounted" in found.detail
    denied = PermissionError(13, "Permission denied", "/sys/fs/cgroup/x/cgroup.subtree_control")
    assert "Delegate=memory" in cgroup.why_not(denied)


@pytest.mark.asyncio
async def test_without_a_limit_the_engine_runs_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nowhere(limit_bytes: int) -> cgroup.EngineCgroup:
        return make_engine_cgroup(limit_bytes, root=tmp_path, own=tmp_path / "cgroup")

    monkeypatch.setattr("edgewright_agent.engines.process.process.make_engine_cgroup", nowhere)
    with caplog.at_level(logging.WARNING):
        process = await EngineProcess.spawn([sys.executable, "-c", "pass"], {}, 64 * MIB)
        death = await process.wait()
    assert death.cause is DeathCause.EXITED
    assert "without a memory limit: no memory controller" in caplog.text


def test_a_kill_in_the_engines_own_group_is_for_memory() -> None:
    assert classify(-9, asked=False, killed_for_memory=True, last_lines=()).cause is DeathCause.OUT_OF_MEMORY
    assert classify(-9, asked=False, killed_for_memory=False, last_lines=()).cause is DeathCause.KILLED


real = pytest.mark.skipif(not enforcement().available, reason=f"no cgroup here: {enforcement().detail}")


@real
@pytest.mark.asyncio
@pytest.mark.parametrize(("limit_mib", "cause"), [(128, DeathCause.OUT_OF_MEMORY), (512, DeathCause.EXITED)])
async def test_the_kernel_kills_an_engine_beyond_its_limit_and_no_other(
    limit_mib: int, cause: DeathCause
) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = await EngineProcess.spawn([sys.executable, "-c", TAKES_300_MIB], {}, limit_mib * MIB)
    group = process.cgroup
    assert group is not None
    death = await process.wait()
    assert death.cause is cause
    assert other.poll() is None
    assert not group.folder.exists()
    other.communicate(b"\n")


MAPS_A_FILE = """
import mmap, sys, time
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    print(sum(mapped[start] for start in range(0, len(mapped), 4096)), flush=True)
    time.sleep(30)
"""


@pytest.mark.asyncio
@pytest.mark.parametrize(("budget_mib", "cause"), [(96, DeathCause.OVER_BUDGET), (512, DeathCause.STOPPED)])
async def test_pages_the_kernel_would_take_back_count_towards_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_mib: int, cause: DeathCause
) -> None:
    monkeypatch.setattr(memory_limit, "WATCH_SECONDS", 0.05)
    file = tmp_path / "weights"
    file.write_bytes(bytes(150 * MIB))
    command = [sys.executable, "-c", MAPS_A_FILE, str(file)]
    has_read = asyncio.Event()
    process = await EngineProcess.spawn(command, {}, budget_mib * MIB, on_line=lambda line: has_read.set())
    process.end_when_over(budget_mib * MIB)
    if cause is DeathCause.OVER_BUDGET:
        await process.wait()
    else:
        await has_read.wait()
        with contextlib.suppress(asyncio.TimeoutError):  # it is looked at many times more
            await asyncio.wait_for(process.wait(), 0.5)
    death = await process.stop()
    assert death.cause is cause
    assert ("its budget is 96.0 MiB" in death.sentence) == (cause is DeathCause.OVER_BUDGET)


@real
def test_the_group_is_made_below_our_own() -> None:
    group = make_engine_cgroup(64 * MIB)
    assert group.folder.parent == find_parent().folder
    group.remove()
    assert not group.folder.exists()
