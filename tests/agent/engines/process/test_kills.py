"""Whose out-of-memory kills are counted: recorded trees of cgroup v1 and v2, and of boards without either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright_agent.engines.process.cgroup import EngineCgroup
from edgewright_agent.engines.process.kills import Among, KillCounter, Kills

UNIT = "system.slice/edgewright-agent.service"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V1_BEFORE_4_13 = "oom_kill_disable 0\nunder_oom 0\n"
V2 = "low 0\nhigh 0\nmax 9\noom 3\noom_kill {}\noom_group_kill 1\n"
VMSTAT = "pgfault 12\noom_kill {}\npgmajfault 3\n"


@dataclass(frozen=True)
class Recorded:
    """A board: JetPack 4 and 5 have version 1, JetPack 6 and 7 version 2."""

    folder: Path
    version: int

    @property
    def group(self) -> EngineCgroup:
        return EngineCgroup(self.unit / "edgewright-engine-1", self.version)

    @property
    def unit(self) -> Path:
        return self.folder / ("fs/memory" if self.version == 1 else "fs") / UNIT

    def counter(self, group: EngineCgroup | None) -> KillCounter:
        proc = self.folder / "proc"
        return KillCounter(group, root=self.folder / "fs", own=proc / "cgroup", vmstat=proc / "vmstat")

    def killed(self, *, engine: int, agent: int, board: int) -> None:
        name, text = ("memory.oom_control", V1) if self.version == 1 else ("memory.events", V2)
        write(self.group.folder / name, text.format(engine))
        write(self.unit / name, text.format(agent))
        write(self.folder / "proc/vmstat", VMSTAT.format(board))


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Recorded:
    board = Recorded(tmp_path, request.param)
    hierarchy = "4:memory" if board.version == 1 else "0:"
    write(tmp_path / "proc/cgroup", f"{hierarchy}:/{UNIT}\n")
    write(board.unit / ("memory.limit_in_bytes" if board.version == 1 else "cgroup.controllers"), "memory\n")
    board.killed(engine=0, agent=4, board=7)
    return board


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")


def test_another_program_killed_for_memory_does_not_count_against_an_engine(recorded: Recorded) -> None:
    own, agents = recorded.counter(recorded.group), recorded.counter(None)
    recorded.killed(engine=0, agent=4, board=9)
    assert own.read() == Kills(0, Among.ENGINE)
    assert agents.read() == Kills(0, Among.AGENT)


def test_a_kill_in_the_engines_own_group_counts(recorded: Recorded) -> None:
    counter = recorded.counter(recorded.group)
    recorded.killed(engine=2, agent=6, board=9)
    assert counter.read() == Kills(2, Among.ENGINE)


def test_without_a_group_of_its_own_the_agents_is_counted_from_the_start(recorded: Recorded) -> None:
    counter = recorded.counter(None)
    recorded.killed(engine=0, agent=5, board=9)
    assert counter.read() == Kills(1, Among.AGENT)


def test_a_group_that_is_gone_with_its_engine_counts_nothing(recorded: Recorded) -> None:
    counter = recorded.counter(recorded.group)
    recorded.group.kills_file.unlink()
    assert counter.read() == Kills(0, Among.ENGINE)


def test_a_kernel_whose_groups_do_not_count_is_asked_for_the_whole_board(tmp_path: Path) -> None:
    board = Recorded(tmp_path, 1)
    write(tmp_path / "proc/cgroup", f"4:memory:/{UNIT}\n")
    write(board.unit / "memory.limit_in_bytes", "9223372036854771712\n")
    for folder in (board.unit, board.group.folder):
        write(folder / "memory.oom_control", V1_BEFORE_4_13)
    write(tmp_path / "proc/vmstat", VMSTAT.format(7))
    counter = board.counter(board.group)
    write(tmp_path / "proc/vmstat", VMSTAT.format(8))
    assert counter.read() == Kills(1, Among.BOARD)


def test_a_board_that_counts_nowhere_has_no_kills(tmp_path: Path) -> None:
    assert Recorded(tmp_path, 2).counter(None).read() == Kills(0, Among.BOARD)
