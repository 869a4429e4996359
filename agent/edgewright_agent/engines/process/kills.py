"""How many processes the kernel has killed for memory, counted as near to one engine as this board allows.

A control group's count tells whoever's limit or memory ran out: cgroup v2 `memory.events`, which includes the groups
below it, v1 `memory.oom_control` since Linux 4.13. An engine without a group of its own is in the agent's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edgewright_agent.engines.process.cgroup import OWN, ROOT, EngineCgroup, find_parent

VMSTAT = Path("/proc/vmstat")


class Among(Enum):
    """Whose kills are counted."""

    ENGINE = "the engine's processes"
    AGENT = "the processes in the agent's control group"
    BOARD = "all processes of this board"


@dataclass(frozen=True)
class Kills:
    """How many, and among which processes they were counted."""

    count: int
    among: Among


class KillCounter:
    """Counts kills from the moment it is made, always in the same file."""

    def __init__(
        self, group: EngineCgroup | None, *, root: Path = ROOT, own: Path = OWN, vmstat: Path = VMSTAT
    ) -> None:
        sources = _narrowest_first(group, root, own)
        source = next(((file, among) for file, among in sources if _count(file) is not None), None)
        self._file, self._among = source or (vmstat, Among.BOARD)
        self._before = self._now()

    def read(self) -> Kills:
        """Returns the kills since then; 0 where nothing on this board says."""
        return Kills(max(0, self._now() - self._before), self._among)

    def _now(self) -> int:
        return _count(self._file) or 0


def _narrowest_first(group: EngineCgroup | None, root: Path, own: Path) -> Iterator[tuple[Path, Among]]:
    if group is not None:
        yield group.kills_file, Among.ENGINE
    try:
        parent = find_parent(root, own)
    except FileNotFoundError:  # no memory controller
        return
    yield EngineCgroup(parent.folder, parent.version).kills_file, Among.AGENT


def _count(file: Path) -> int | None:
    """Returns the count in a file; None if there is none."""
    try:
        words = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    return next((int(line[1]) for line in words if line[:1] == ["oom_kill"]), None)
