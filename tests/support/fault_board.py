"""A board with the real store and deployer, which a test brings into any state and then hits with a fault."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import EdgewrightError, OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.engine_manager import ServingRelease
from edgewright_agent.deployment.probes import BoardSensors
from edgewright_agent.deployment.state import Phase, State
from edgewright_agent.engines import DeathCause
from edgewright_agent.runtime.threads import run_in_thread
from edgewright_agent.store import Space, StagedRelease, Store
from tests.support.artifacts import TestArtifact, make_artifact, stage
from tests.support.faulty_fs import Disk, RecordingFileSystem
from tests.support.scripted_engine import TOKENS, Script

GOLDEN = {"prompt": "p", "tokens": list(TOKENS)}
OLDER = make_artifact({"engine/model.bin": b"less " * 300, "t/tok.json": b"{0}"}, version="0", golden=GOLDEN)
OLD = make_artifact({"engine/model.bin": b"old " * 300, "t/tok.json": b"{1}"}, version="1", golden=GOLDEN)
NEW = make_artifact({"engine/model.bin": b"new " * 300, "t/tok.json": b"{2}"}, version="2", golden=GOLDEN)
NAMES = {OLDER.digest: "older", OLD.digest: "old", NEW.digest: "new", None: "nothing"}
PROBES_SECONDS = 0.2  # patched in for `activation.PROBES_SECONDS_MAX`
SECONDS_MAX = 30.0  # to come to rest; a busy machine is slow
POWER_CUTS = (("lost", "lost"), ("kept", "lost"), ("lost", "kept"), ("torn", "torn"))


DEADLY = ("SIGKILL", "power cut")


class KilledError(BaseException):
    """The agent is dead: nobody handles this."""


AWAITING = State(phase=Phase.PROBATION, awaiting_confirmation=True)
Image = dict[tuple[str, ...], bytes | None]
Hits = Callable[[str, Path | StagedRelease, State], bool]


@dataclass
class Fault:
    """What goes wrong, and when: the `first` call that `hits`, and each after it if the fault lasts."""

    kind: str
    hits: Hits
    lasts: bool = False
    first: int = 0
    seen: int = 0  # calls that it could have hit
    happened: int = 0
    mended: bool = False

    def strikes(self, what: str, where: Path | StagedRelease, state: State) -> bool:
        if self.mended or not self.hits(what, where, state):
            return False
        self.seen += 1
        struck = self.seen == self.first + 1 or (self.lasts and self.seen > self.first)
        self.happened += struck
        return struck


ERRORS: dict[str, Callable[[], Exception]] = {
    "exception": lambda: RuntimeError("nobody expected this"),
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EIO": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "timeout": lambda: OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),
}


class Board:
    """Runs an agent's store and deployer until it is killed; then it may be powered on again."""

    def __init__(
        self, root: Path, *, room_for_two: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root = root
        self.clock = clock
        self.fs = RecordingFileSystem(root, self._before_disk)
        self.script = Script(before=self._before_engine)
        self.disk_before: Image = {}  # when the file system began to record
        self.fault: Fault | None = None
        self.dead = False
        self.host_confirms = False
        self._word_said = False
        self._budget_bytes = 2**31 if room_for_two else 10_000
        self._available_bytes = 2**32 if room_for_two else 0
        root.mkdir(exist_ok=True)
        self.attempts_seen_max = self.transitions_seen_max = 0
        self.store: Store
        self.deployer: Deployer
        self._watching: asyncio.Task[None]

    async def power_on(self) -> None:
        self.store = Store(self.root, space=Space(reserve_bytes=0), fs=self.fs, clock=self.clock)
        self.deployer = Deployer(
            self.store,
            self.script.start,
            budget_bytes=self._budget_bytes,
            probation_seconds=0.01,
            restart_seconds=0.0005,
            on_serving=_nobody_listens,
            senses=BoardSensors(available_bytes=lambda: self._available_bytes),
        )
        self._watching = asyncio.create_task(self._watch())
        await self.deployer.start()

    async def power_off(self) -> None:
        self._watching.cancel()
        with contextlib.suppress(KilledError, RuntimeError):
            await self.deployer.stop()
        self.store.close()

    async def _watch(self) -> None:
        async for status in self.deployer.watch(follow=True):
            self.attempts_seen_max = max(self.attempts_seen_max, status.state.attempts)
            self.transitions_seen_max = max(self.transitions_seen_max, status.state.transitions)

    async def push(self, artifact: TestArtifact, chunk_bytes: int = 4096) -> None:
        await run_in_thread(stage, self.store, artifact, chunk_bytes)
        await self.deployer.staged(artifact.digest)

    @property
    def state(self) -> State:
        return self.deployer.state

    @property
    def serving(self) -> str | None:
        """The digest of the release that answers requests."""
        try:
            return self.deployer.serving().release.digest
        except EdgewrightError:
            return None

    @property
    def serves(self) -> str:
        return NAMES[self.serving]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Waits for it. Raises KilledError if the agent dies before, AssertionError if it does not come."""
        deadline = asyncio.get_running_loop().time() + SECONDS_MAX
        while not is_so():
            assert asyncio.get_running_loop().time() < deadline, (self.serving, self.state)
            await asyncio.sleep(0.0005)
            if not self.state.awaiting_confirmation:
                self._word_said = False
            elif not self._word_said:
                self._word_said = True
                await self._say_the_word()
            if self.dead:
                raise KilledError

    async def comes_to_rest(self) -> str:
        """Waits until nothing is under way and what should serve does; says what that is."""
        await self.rest()
        return self.outcome

    async def rest(self) -> None:
        await self.until(lambda: self.rests)

    @property
    def rests(self) -> bool:
        """Whether nothing is under way and what should serve does."""
        return self.state.at_rest and self.state.serves in (None, self.serving)

    async def _say_the_word(self) -> None:
        """Once in each wait for it."""
        if self.fault is not None and self.fault.strikes("word", self.root, self.state):
            self.dead = self.fault.kind in DEADLY
            if self.fault.kind == "engine dies":
                self.script.running[-1].die(DeathCause.OUT_OF_MEMORY)
        elif self.host_confirms:
            await self.deployer.confirm(str(self.state.candidate))

    @property
    def outcome(self) -> str:
        """`older`, `old`, `new` or `nothing` that serves, and what else the state says."""
        state = self.state
        words = [self.serves if self.state.serves is not None else "nothing"]
        words += ["staged"] if state.phase is Phase.STAGED else []
        words += ["safe"] if state.phase is Phase.SAFE else []
        words += [f"{NAMES[digest]} denied" for digest in state.denied]
        return " + ".join(words)

    # Faults

    def _before_disk(self, what: str, path: Path) -> None:
        if self.dead:
            raise KilledError
        if self.fault is None or not self.fault.strikes(what, path, self.state):
            return
        if self.fault.kind in DEADLY:
            self.dead = True
            raise KilledError
        raise ERRORS[self.fault.kind]()

    async def _before_engine(self, what: str, release: StagedRelease) -> None:
        if self.dead:
            raise KilledError
        fault = self.fault
        if fault is None or not fault.strikes(what, release, self.state):
            return
        if fault.kind in DEADLY:
            self.dead = True
            raise KilledError
        if fault.kind == "engine dies":
            self.script.running[-1].die(DeathCause.OUT_OF_MEMORY)
            return
        if fault.kind == "timeout" and what == "ask":
            await asyncio.sleep(100 * PROBES_SECONDS)
        if fault.kind == "timeout":
            raise OutsideError("The engine was not ready in time.", Reason.REASON_ENGINE_FAILED)
        raise ERRORS[fault.kind]()

    def disks_after_a_power_cut(self) -> Iterator[Image]:
        """Different disks that the cut may have left."""
        seen = []
        for names, data in POWER_CUTS:
            image = self.disk_after(names, data)
            if image not in seen:
                seen.append(image)
                yield image

    def disk_after(self, names: str, data: str) -> Image:
        """The disk after a power cut that has this effect on what was not synced; see `Disk.image`."""
        disk = Disk(self.disk_before)
        for operation in self.fs.operations:
            disk.apply(operation)
        return disk.image(names=names, data=data, chance=random.Random(3))

    def continue_on(self, dead: Board) -> None:
        """The same disk, with what was not synced: a SIGKILL takes nothing away."""
        self.disk_before = dead.disk_before
        self.fs.operations = dead.fs.operations
        self.fs.numbers = dead.fs.numbers


async def _nobody_listens(serving: ServingRelease | None) -> None:
    """Nothing follows what is served."""


Step = Callable[[Board], Awaitable[None]]


async def old_serves(board: Board) -> None:
    await board.push(OLD)
    await board.deployer.activate(OLD.digest)
    assert await board.comes_to_rest() == "old"


async def old_serves_after_older(board: Board) -> None:
    """And the new release is staged."""
    await board.push(OLDER)
    await board.deployer.activate(OLDER.digest)
    assert await board.comes_to_rest() == "older"
    await new_is_staged(board)


async def new_is_staged(board: Board) -> None:
    await old_serves(board)
    await board.push(NEW)


async def new_serves(board: Board) -> None:
    await new_is_staged(board)
    await board.deployer.activate(NEW.digest)
    assert await board.comes_to_rest() == "new"


async def first_is_staged(board: Board) -> None:
    await board.push(NEW)


async def nothing_starts(board: Board) -> None:
    """SAFE: neither the new release nor the old one could be started."""
    await new_is_staged(board)
    board.script.refuse = {OLD.digest, NEW.digest}
    await board.deployer.activate(NEW.digest)
    assert await board.comes_to_rest() == "nothing + safe + new denied"
    board.script.refuse = set()


async def push_new(board: Board) -> None:
    await board.push(NEW)


async def activate_new(board: Board) -> None:
    await board.deployer.activate(NEW.digest)


async def activate_new_confirmed(board: Board) -> None:
    """It stays only if the host says so in time."""
    board.host_confirms = True
    silent = board.fault is not None and board.fault.hits("word", board.root, AWAITING)
    await board.deployer.activate(NEW.digest, confirm_within_seconds=0.5 if silent else SECONDS_MAX)


async def activate_new_that_fails(board: Board) -> None:
    board.script.refuse = {NEW.digest}
    await board.deployer.activate(NEW.digest)


async def activate_new_and_both_fail(board: Board) -> None:
    """Nor does the active release start again."""
    board.script.refuse = {NEW.digest, OLD.digest}
    await board.deployer.activate(NEW.digest)


async def roll_back(board: Board) -> None:
    await board.deployer.roll_back()


async def activate_again(board: Board) -> None:
    await board.deployer.activate(NEW.digest, force=True)


async def delete_new(board: Board) -> None:
    await board.deployer.delete(NEW.digest)


async def engine_restarts(board: Board) -> None:
    """The active release's engine dies at rest."""
    engines = len(board.script.engines)
    board.script.running[-1].die()
    await board.until(lambda: board.serves == "nothing" or len(board.script.engines) > engines)


async def rest(board: Board) -> None:
    """The fault comes by itself."""
    assert board.fault is not None
    if board.fault.strikes("rest", board.root, board.state):
        board.dead = True
        raise KilledError
