"""What a board may do about a fault: one row per state, change under way, operation and fault.

Each row is driven at every call of its operation, one call after the other, through the real deployer and store over
a file system and an engine that fail as told. A fault lasts until it has struck four times and one has looked at
what serves `meanwhile`; or it strikes `once`, or `for good`. A SIGKILL and a power cut end the agent, which is then
started again. Whatever happened, the board must afterwards take the new release when it is pushed again.

Outcomes: `older`, `old`, `new` or `nothing` that serves, `staged` if a release waits, `safe` if an operator has to
choose, `denied` releases; `|` separates those that are allowed.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright.errors import EdgewrightError
from edgewright_agent.deployment.state import Phase, State
from edgewright_agent.store import StagedRelease
from tests.agent.store.test_power_cuts import lay_out
from tests.support import fault_board
from tests.support.fault_board import DEADLY, NEW, OLD, PROBES_SECONDS, Board, Fault, Image, KilledError, Step

TABLE = """
state              change                  operation       fault           meanwhile  afterwards

# A release is pushed to a board that serves another.
idle               push                    receive blob    SIGKILL         -          old
idle               push                    receive blob    power cut       -          old
idle               push                    receive blob    ENOSPC          old        old
idle               push                    receive blob    EIO             old        old
idle               push                    receive blob    timeout         old        old
idle               push                    receive blob    exception       old        old
idle               push                    build release   SIGKILL         -          old
idle               push                    build release   power cut       -          old
idle               push                    build release   ENOSPC          old        old
idle               push                    build release   EIO             old        old
idle               push                    build release   exception       old        old
idle               push                    write state     SIGKILL         -          old | old + staged
idle               push                    write state     power cut       -          old | old + staged
idle               push                    write state     ENOSPC          old        old
idle               push                    write state     EIO             old        old

# The engine of the active release has died and is started again.
idle               engine restarts         write state     SIGKILL         -          old
idle               engine restarts         write state     power cut       -          old
idle               engine restarts         write state     ENOSPC          old        old
idle               engine restarts         write state     EIO             old        old
idle               engine restarts         write state     exception       old        old
idle               engine restarts         read blob       SIGKILL         -          old
idle               engine restarts         read blob       EIO             nothing    nothing
idle               engine restarts         read blob       timeout         nothing    old
idle               engine restarts         read blob       exception       nothing    old
idle               engine restarts         start engine    SIGKILL         -          old
idle               engine restarts         start engine    exception once  old        old
idle               engine restarts         start engine    timeout once    old        old
idle               engine restarts         start engine    timeout for good  -        nothing + safe
idle, new active   engine restarts         start engine    timeout for good  -        old
idle, new active   engine restarts         read blob       EIO             old        old
staged             engine restarts         start engine    SIGKILL         -          old + staged
staged             engine restarts         start engine    exception once  old        old + staged

# A staged release: activated, or deleted.
staged             activate                write state     SIGKILL         -          new | old + staged
staged             activate                write state     power cut       -          new | old + staged
staged             activate                write state     ENOSPC          old        old + staged
staged             activate                write state     EIO             old        old + staged
staged             activate                write state     exception       old        old + staged
staged             delete                  remove release  SIGKILL         -          old | old + staged
staged             delete                  remove release  power cut       -          old | old + staged
staged             delete                  remove release  EIO             old        old | old + staged
staged             delete                  write state     SIGKILL         -          old
staged             delete                  write state     power cut       -          old
staged             delete                  write state     ENOSPC          old        old + staged

# The staged release is being started, in place of the old one.
activating         activate                write state     SIGKILL         -          new
activating         activate                write state     power cut       -          new
activating         activate                write state     ENOSPC          old        new
activating         activate                write state     ENOSPC once     -          new
activating         activate                write state     EIO             old        new
activating         activate                write state     exception       old        new
activating         activate                stop engine     SIGKILL         -          new
activating         activate                stop engine     exception once  -          new
activating         activate                read blob       SIGKILL         -          new
activating         activate                read blob       power cut       -          new
activating         activate                read blob       EIO             old        old
activating         activate                read blob       timeout         old        old
activating         activate                read blob       timeout once    -          new
activating         activate                read blob       exception once  -          new
activating         activate                start engine    SIGKILL         -          new
activating         activate                start engine    power cut       -          new
activating         activate                start engine    exception       old        old + new denied
activating         activate                start engine    exception once  -          new
activating         activate                start engine    timeout         old        old + new denied
activating         activate                start engine    ENOSPC          old        old
activating, first  activate                write state     SIGKILL         -          new
activating, first  activate                write state     power cut       -          new
activating, first  activate                write state     ENOSPC          nothing    new
activating, first  activate                start engine    timeout         nothing    nothing + new denied
activating, first  activate                start engine    SIGKILL         -          new
activating, warm   activate                write state     SIGKILL         -          new
activating, warm   activate                write state     power cut       -          new
activating, warm   activate                write state     ENOSPC          old        new
activating, warm   activate                start engine    exception       old        old + new denied

# The new release answers and is being probed.
probation          activate                write state     SIGKILL         -          new
probation          activate                write state     power cut       -          new
probation          activate                write state     ENOSPC          old        new
probation          activate                write state     EIO             old        new
probation          activate                write state     exception       old        new
probation          activate                ask engine      SIGKILL         -          new
probation          activate                ask engine      power cut       -          new
probation          activate                ask engine      exception       old        old + new denied
probation          activate                ask engine      exception once  -          new
probation          activate                ask engine      timeout         old        old + new denied
probation          activate                ask engine      timeout once    -          new
probation          activate                ask engine      engine dies     old        old + new denied
probation          activate                ask engine      engine dies once  -        new
probation, first   activate                ask engine      timeout         nothing    nothing + new denied
probation, first   activate                ask engine      SIGKILL         -          new
probation, warm    activate                ask engine      SIGKILL         -          new
probation, warm    activate                ask engine      timeout         old        old + new denied
probation, warm    activate                ask engine      engine dies     old        old + new denied
probation, warm    activate                write state     ENOSPC          old        new

# The new release passed its probes; the host has to confirm it.
awaiting           activate, confirmed     write state     SIGKILL         -          new
awaiting           activate, confirmed     write state     power cut       -          new
awaiting           activate, confirmed     write state     ENOSPC          old        new
awaiting           activate, confirmed     host's word     SIGKILL         -          old
awaiting           activate, confirmed     host's word     power cut       -          old
awaiting           activate, confirmed     host's word     timeout         -          old
awaiting           activate, confirmed     host's word     engine dies     old        old + new denied

# Back to the old release, because the new one failed.
rolling back       activate, fails         write state     SIGKILL         -          old + new denied
rolling back       activate, fails         write state     power cut       -          old + new denied
rolling back       activate, fails         write state     ENOSPC          old        old + new denied
rolling back       activate, fails         write state     EIO             old        old + new denied
rolling back       activate, fails         write state     exception       old        old + new denied
rolling back       activate, fails         read blob       SIGKILL         -          old + new denied
rolling back       activate, fails         read blob       EIO             nothing    nothing + safe + new denied
rolling back       activate, fails         read blob       timeout once    -          old + new denied
rolling back       activate, fails         start engine    SIGKILL         -          old + new denied
rolling back       activate, fails         start engine    power cut       -          old + new denied
rolling back       activate, fails         start engine    exception once  -          old + new denied
rolling back       activate, fails         start engine    timeout         nothing    nothing + safe + new denied

# Back to the release before the old one, because neither the new one nor the old one serves.
rolling back, older  activate, fails       write state     SIGKILL         -          old + new denied
rolling back, older  activate, fails       write state     power cut       -          old + new denied
rolling back, older  activate, fails       read old blob   SIGKILL         -          old + new denied
rolling back, older  activate, fails       read old blob   EIO             older      older + new denied
rolling back, older  activate, fails       start old engine  timeout       older      older + new denied
rolling back, older  activate, fails       start engine    timeout for good  -        nothing + safe + new denied
rolling back, older  activate, both fail   write state     SIGKILL         -          old + new denied | older + new denied
rolling back, older  activate, both fail   write state     power cut       -          old + new denied | older + new denied
rolling back, older  activate, both fail   write state     ENOSPC          -          older + new denied

# Back to the old release as asked; if that can't be, the new one stays.
rolling back       roll back               write state     SIGKILL         -          old
rolling back       roll back               write state     power cut       -          old
rolling back       roll back               write state     ENOSPC          new        old
rolling back       roll back               read old blob   EIO             new        new
rolling back       roll back               start engine    SIGKILL         -          old
rolling back       roll back               start engine    power cut       -          old
rolling back       roll back               start old engine  timeout       new        new
rolling back       roll back               start engine    timeout for good  -        nothing + safe
rolling back       roll back               start engine    exception once  -          old
idle, new active   roll back               write state     SIGKILL         -          new | old
idle, new active   roll back               write state     power cut       -          new | old
idle, new active   roll back               write state     ENOSPC          new        new

# Nothing could be started: the board waits for an operator.
safe               rest                    power           SIGKILL         -          nothing + safe + new denied
safe               rest                    power           power cut       -          nothing + safe + new denied
safe               roll back               write state     SIGKILL         -          nothing + safe + new denied | old + new denied
safe               roll back               write state     power cut       -          nothing + safe + new denied | old + new denied
safe               roll back               write state     ENOSPC          nothing    nothing + safe + new denied
safe               activate again          write state     SIGKILL         -          nothing + safe + new denied | new
safe               activate again          write state     ENOSPC          nothing    nothing + safe + new denied
"""  # noqa: E501

ROWS_MIN = 60
RETRIES_LOOKED_AT = 4
CALLS_MAX = 100  # of one operation

PHASES = {
    "idle": Phase.IDLE,
    "staged": Phase.STAGED,
    "activating": Phase.ACTIVATING,
    "probation": Phase.PROBATION,
    "awaiting": Phase.PROBATION,
    "rolling back": Phase.ROLLING_BACK,
    "safe": Phase.SAFE,
}
PREPARED: dict[str, Step] = {  # by state and change; else by state
    "idle": fault_board.old_serves,
    "idle, new active": fault_board.new_serves,
    "staged": fault_board.new_is_staged,
    "activating": fault_board.new_is_staged,
    "activating, first": fault_board.first_is_staged,
    "activating, warm": fault_board.new_is_staged,
    "probation": fault_board.new_is_staged,
    "probation, first": fault_board.first_is_staged,
    "probation, warm": fault_board.new_is_staged,
    "awaiting": fault_board.new_is_staged,
    "rolling back": fault_board.new_is_staged,
    "rolling back, older": fault_board.old_serves_after_older,
    "rolling back: roll back": fault_board.new_serves,
    "safe": fault_board.nothing_starts,
}
CHANGES: dict[str, Step] = {
    "push": fault_board.push_new,
    "engine restarts": fault_board.engine_restarts,
    "activate": fault_board.activate_new,
    "activate, confirmed": fault_board.activate_new_confirmed,
    "activate, fails": fault_board.activate_new_that_fails,
    "activate, both fail": fault_board.activate_new_and_both_fail,
    "activate again": fault_board.activate_again,
    "roll back": fault_board.roll_back,
    "delete": fault_board.delete_new,
    "rest": fault_board.rest,
}
OPERATIONS: dict[str, Callable[[str, Path | StagedRelease], bool]] = {
    "receive blob": lambda what, where: _touches(what, where, "partial", "blobs"),
    "build release": lambda what, where: _touches(what, where, "releases"),
    "remove release": lambda what, where: _touches(what, where, "releases"),
    "write state": lambda what, where: isinstance(where, Path) and "state.json" in where.name,
    "read blob": lambda what, where: what == "read",
    "read old blob": lambda what, where: (
        isinstance(where, Path) and what == "read" and where.name in OLD.contents
    ),
    "start engine": lambda what, where: what == "start",
    "start old engine": lambda what, where: isinstance(where, StagedRelease) and where.digest == OLD.digest,
    "ask engine": lambda what, where: what == "ask",
    "stop engine": lambda what, where: what == "stop",
    "host's word": lambda what, where: what == "word",
    "power": lambda what, where: what == "rest",
}


def _touches(what: str, where: Path | StagedRelease, *folders: str) -> bool:
    return isinstance(where, Path) and what != "read" and any(name in where.parts for name in folders)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    state: str
    change: str
    operation: str
    fault: str
    meanwhile: str
    allowed: frozenset[str]

    @property
    def kind(self) -> str:
        return self.fault.removesuffix(" once").removesuffix(" for good")

    def new_fault(self, first: int) -> Fault:
        lasts = self.kind not in DEADLY and not self.fault.endswith(" once")
        return Fault(self.kind, self._hits, lasts=lasts, first=first)

    @property
    def prepare(self) -> Step:
        return PREPARED.get(f"{self.state}: {self.change}") or PREPARED[self.state]

    def _hits(self, what: str, where: Path | StagedRelease, state: State) -> bool:
        word = self.state.partition(",")[0]
        in_state = state.phase is PHASES[word] and state.awaiting_confirmation == (word == "awaiting")
        return in_state and OPERATIONS[self.operation](what, where)


def parse(line: str) -> Row:
    state, change, operation, fault, meanwhile, allowed = re.split(r"  +", line)
    return Row(state, change, operation, fault, meanwhile, frozenset(allowed.split(" | ")))


ROWS = [parse(line) for line in TABLE.splitlines()[2:] if line and not line.startswith("#")]


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield folder
    shutil.rmtree(folder)


def test_the_table_has_a_row_for_every_state_and_fault() -> None:
    assert len(ROWS) >= ROWS_MIN
    assert len(set(ROWS)) == len(ROWS)
    assert {row.state.partition(",")[0] for row in ROWS} == set(PHASES)
    for state in PHASES:
        kinds = {row.kind for row in ROWS if row.state.startswith(state)}
        assert kinds >= {"SIGKILL", "power cut"}
    assert {row.kind for row in ROWS} >= {"exception", "ENOSPC", "EIO", "timeout"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.state}-{row.change}-{row.operation}-{row.fault}")
async def test_a_fault_ends_as_the_table_says(
    row: Row, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if row.kind == "timeout":  # probes that do not wait for ten minutes
        monkeypatch.setattr("edgewright_agent.deployment.activation.PROBES_SECONDS_MAX", PROBES_SECONDS)
    disks: list[Image] = []
    for first in itertools.count():
        assert first < CALLS_MAX
        if not await struck(row, first, scratch / "board", disks):
            break
        shutil.rmtree(scratch / "board")
    assert first > 0, "the fault never happened"


async def struck(row: Row, first: int, root: Path, disks: list[Image]) -> bool:
    """Drives the row with the fault at its `first` call; whether there was such a call. `disks`: see `recover`."""
    board = Board(root, room_for_two="warm" in row.state)
    await board.power_on()
    try:
        await row.prepare(board)
        board.fault = row.new_fault(first)
        await run_change(row, board)
        ended = await board.comes_to_rest()
    except KilledError:
        await board.power_off()
        await recover(row, board, disks)
        return True
    board.fault.mended = True
    if board.fault.happened:
        await check(row, board, ended)
    await board.power_off()
    return board.fault.happened > 0


async def run_change(row: Row, board: Board) -> None:
    """Until the fault has been looked at long enough."""
    fault = board.fault
    assert fault is not None
    with contextlib.suppress(EdgewrightError, OSError, RuntimeError):  # the caller is told
        await CHANGES[row.change](board)
    if fault.lasts and not row.fault.endswith("for good"):
        await board.until(lambda: board.rests or fault.happened >= RETRIES_LOOKED_AT)
        if fault.happened:
            await board.until(lambda: row.meanwhile in ("-", board.serves))
        fault.mended = True


async def recover(row: Row, killed: Board, disks: list[Image]) -> None:
    """Every board that the agent may find when it is started again.

    `disks` are those that power cuts at earlier calls left: nothing but the disk outlives a cut, so each is started
    from once.
    """
    roots = [killed.root]
    if row.kind == "power cut":
        roots = []
        for image in killed.disks_after_a_power_cut():
            if image in disks:
                continue
            disks.append(image)
            roots.append(killed.root.with_name(f"cut-{len(disks)}"))
            lay_out(roots[-1], image)
    for root in roots:
        board = Board(root, room_for_two="warm" in row.state)
        board.host_confirms = killed.host_confirms and row.operation != "host's word"
        await board.power_on()
        await check(row, board, await board.comes_to_rest())
        await board.power_off()
        if root != killed.root:
            shutil.rmtree(root)


async def check(row: Row, board: Board, ended: str) -> None:
    """The outcome is one of the row's, what serves is sound, and nothing is beyond repair."""
    assert ended in row.allowed, f"{ended}: {board.state}"
    if board.state.active is not None:
        board.store.verify_release(board.store.release(board.state.active))
    board.script.refuse = set()
    await board.push(NEW)
    await board.deployer.activate(NEW.digest, force=True)
    assert await board.comes_to_rest() == "new", board.state
