"""Whatever a host asks of a board, in any order, with the power cut anywhere: the board does what a dictionary says.

The model is a few sets and names; the board is the real store and deployer on a disk that forgets what was not synced.
What was under way when the board died may have happened or not. Everything else must be as it was.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from edgewright.errors import EdgewrightError, RefusedError
from edgewright_agent.deployment.activation_rules import ATTEMPTS_MAX, STARTS_MAX, TRANSITIONS_MAX
from edgewright_agent.deployment.state import State
from edgewright_agent.runtime.threads import run_in_thread
from edgewright_agent.store import Blob
from edgewright_agent.store.blobs.blob import from_ranges
from edgewright_agent.store.scrub import scrub
from edgewright_agent.store.upkeep.garbage import PROTECTED_SECONDS
from tests.agent.deployment.lifecycle_model import (
    ARTIFACTS,
    BAD,
    BLOBS,
    CHUNK_BYTES,
    CONTENTS,
    GOOD,
    Model,
)
from tests.agent.store.test_power_cuts import lay_out
from tests.support.artifacts import put_blob
from tests.support.fault_board import POWER_CUTS, Board, Fault, KilledError

artifacts = st.sampled_from(sorted(ARTIFACTS))
blobs = st.sampled_from(sorted(BLOBS))
cuts = st.sampled_from(
    (None, *POWER_CUTS)
)  # what the disk forgets; None: a SIGKILL, which takes nothing away
deaths = st.none() | st.tuples(st.integers(0, 80), cuts)  # so many calls of the disk later
Death = tuple[int, tuple[str, str] | None] | None


class LifecycleMachine(RuleBasedStateMachine):
    """Rules are what hosts and the world do; each is done to the board and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.roots = (self.folder / str(number) for number in itertools.count())
        self.seconds = 0.0
        self.model = Model()
        self.board = self.new_board(next(self.roots))
        self.run(self.board.power_on())

    def new_board(self, root: Path) -> Board:
        board = Board(root, clock=lambda: self.seconds)
        board.script.refuse = {each.digest for each in BAD}
        return board

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(doing)

    def teardown(self) -> None:
        self.board.fault = None
        self.run(self.board.power_off())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)

    # What hosts ask

    @initialize(digests=st.lists(st.sampled_from([each.digest for each in GOOD]), min_size=1, max_size=2))
    def something_serves(self, digests: list[str]) -> None:
        """And there may be a previous release."""
        for digest in digests:
            self.stage(digest, None)
            self.activate(digest, False, None)

    @rule(sha256=blobs, share=st.floats(0, 1), death=deaths)
    def put_a_part(self, sha256: str, share: float, death: Death) -> None:
        blob = BLOBS[sha256]
        chunks = set(range(int(share * len(blob.chunks))))

        def part(model: Model) -> None:
            if sha256 not in model.blobs and chunks:
                model.uploads.setdefault(sha256, set()).update(chunks)

        self.both(lambda: run_in_thread(write, self.board, blob, chunks), part, death)

    @rule(sha256=blobs, death=deaths)
    def resume(self, sha256: str, death: Death) -> None:
        """What was reported durable is not sent again."""

        def put() -> None:
            upload = self.board.store.begin_upload(BLOBS[sha256])
            if upload is not None:
                present = upload.present
                self.board.store.end_upload(upload)
                assert present >= self.model.uploads.get(sha256, set())
            put_blob(self.board.store, CONTENTS[sha256], CHUNK_BYTES)

        self.both(lambda: run_in_thread(put), lambda model: model.put(sha256), death)

    @rule(digest=artifacts, death=deaths)
    def stage(self, digest: str, death: Death) -> None:
        self.both(
            lambda: self.board.push(ARTIFACTS[digest], CHUNK_BYTES), lambda model: model.stage(digest), death
        )

    @rule(digest=artifacts, force=st.booleans(), death=deaths)
    def activate(self, digest: str, force: bool, death: Death) -> None:
        self.both(
            lambda: self.board.deployer.activate(digest, force=force),
            lambda model: model.activate(digest, force=force),
            death,
        )

    @rule(death=deaths)
    def roll_back(self, death: Death) -> None:
        self.both(lambda: self.board.deployer.roll_back(), lambda model: model.roll_back(), death)

    @rule(digest=artifacts, death=deaths)
    def delete(self, digest: str, death: Death) -> None:
        """Its name goes before the memory that it failed here."""
        self.both(
            lambda: self.board.deployer.delete(digest),
            lambda model: model.delete(digest),
            death,
            between=lambda model: model.delete(digest, forgive=False),
        )

    @rule(idle=st.booleans(), death=deaths)
    def collect(self, idle: bool, death: Death) -> None:
        """After an hour nothing stays that nobody needs."""
        self.seconds += PROTECTED_SECONDS if idle else 0.0

        def forget(model: Model) -> None:
            model.blobs = set(model.needed) if idle else model.blobs

        self.both(lambda: run_in_thread(self.board.store.collect), forget, death)
        if idle and self.alive_since_the_clock_moved:
            assert set(self.board.store.blob_bytes()) == self.model.needed

    @rule(sha256=blobs)
    def rot_and_scrub(self, sha256: str) -> None:
        """One flipped bit is found, told, and mended by sending the blob again."""
        path = self.board.store.layout.blob(sha256)
        if not path.exists():
            return
        path.chmod(0o644)
        path.write_bytes(CONTENTS[sha256][:-1] + b"!")
        found = list(scrub(self.board.store))[-1]
        assert found.corrupt == (sha256,)
        damaged = {digest for digest in self.model.staged if sha256 in ARTIFACTS[digest].contents}
        assert set(found.damaged) == damaged
        put_blob(self.board.store, CONTENTS[sha256], CHUNK_BYTES)
        self.model.put(sha256)

    @rule(digest=st.sampled_from([each.digest for each in BAD]))
    def activate_a_bad_one_while_the_active_one_rots(self, digest: str) -> None:
        """The previous release serves then, if there is one; else an operator has to choose."""
        active = self.model.active
        if active is None:
            return
        self.stage(digest, None)
        sha256 = ARTIFACTS[active].manifest.files[0].sha256
        path = self.board.store.layout.blob(sha256)
        path.chmod(0o644)
        path.write_bytes(CONTENTS[sha256][:-1] + b"!")
        self.both(
            lambda: self.board.deployer.activate(digest, force=True),
            lambda model: model.activate(digest, force=True, rotten=True),
            None,
        )
        list(scrub(self.board.store))
        put_blob(self.board.store, CONTENTS[sha256], CHUNK_BYTES)
        self.model.put(sha256)

    # What the world does

    @rule(cut=cuts)
    def dies_at_rest(self, cut: tuple[str, str] | None) -> None:
        self.not_too_often()
        self.recover([self.model], cut)

    def not_too_often(self) -> None:
        """A board that dies soon after each start suspects its release; `test_activation_rules` shows that."""
        if self.board.state.starts >= STARTS_MAX - 1:
            self.restart()

    @rule()
    def restart(self) -> None:
        """As `systemctl restart` does."""
        self.run(self.board.power_off())
        self.run(self.board.power_on())
        self.alive_since_the_clock_moved = False
        self.run(self.board.rest())

    # Both

    alive_since_the_clock_moved = True

    def both(
        self,
        ask: Callable[[], Coroutine[Any, Any, Any]],
        expect: Callable[[Model], None],
        death: Death,
        between: Callable[[Model], None] = lambda model: None,
    ) -> None:
        """Does it to the board and to the model; they agree also on whether it is refused."""
        before, half, after = self.model, copy.deepcopy(self.model), copy.deepcopy(self.model)
        try:
            expect(after)
            between(half)
            refused = False
        except RefusedError:
            refused, half, after = True, before, before
        self.alive_since_the_clock_moved = True
        if death is not None:
            self.not_too_often()
            self.board.fault = Fault("SIGKILL", is_of_the_disk, first=death[0])
        try:
            assert self.run(self.is_refused(ask)) == refused
            self.run(self.board.rest())
            self.model = after
        except KilledError:
            assert death is not None
            self.recover([before, half, after], death[1])
        self.board.fault = None

    async def is_refused(self, ask: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        try:
            await ask()
        except RefusedError:
            return True
        return False

    def recover(self, allowed: list[Model], cut: tuple[str, str] | None) -> None:
        """Starts the agent again on what the disk has kept; the board is as one of the models says."""
        dying = self.board
        dying.dead = True
        self.run(dying.power_off())
        if cut is None:
            self.board = self.new_board(dying.root)
            self.board.continue_on(dying)
        else:
            image, root = dying.disk_after(*cut), next(self.roots)
            lay_out(root, image)
            self.board = self.new_board(root)
            self.board.disk_before = image
        self.run(self.board.power_on())
        self.run(self.board.rest())
        self.alive_since_the_clock_moved = False
        self.adopt(allowed)

    def adopt(self, allowed: list[Model]) -> None:
        found = self.board_as_model()
        assert found.committed in [model.committed for model in allowed]
        certain = set.intersection(*(model.blobs for model in allowed))
        assert certain <= found.blobs
        for sha256, chunks in allowed[0].uploads.items():
            assert sha256 in found.blobs or found.uploads.get(sha256, set()) >= chunks
        self.model = found

    def board_as_model(self) -> Model:
        state, store = self.board.state, self.board.store
        names = {path.stem for path in store.layout.partial.glob("*.data")}
        return Model(
            active=state.active,
            previous=state.previous,
            denied=list(state.denied),
            counter_floor=state.counter_floor,
            staged=set(store.releases()),
            uploads={name: from_ranges(store.write_status(name).durable_chunks) for name in names},
            blobs=set(store.blob_bytes()),
        )

    # What always holds

    @invariant()
    def the_board_is_as_the_model_says(self) -> None:
        found = self.board_as_model()
        assert found.committed == self.model.committed
        assert found.blobs >= self.model.blobs >= self.model.needed
        for sha256, chunks in self.model.uploads.items():  # the blob may have been here, though it need not
            assert sha256 in found.blobs or found.uploads.get(sha256, set()) >= chunks

    @invariant()
    def what_was_committed_is_served(self) -> None:
        if self.model.active is None:
            with pytest.raises(EdgewrightError):
                self.board.deployer.serving()
            return
        assert self.board.deployer.serving().release.digest == self.model.active

    @invariant()
    def what_is_needed_is_whole(self) -> None:
        for digest in self.model.staged:
            release = self.board.store.release(digest)
            for file in release.manifest.files:
                assert (release.tree / file.path).read_bytes() == CONTENTS[file.sha256]
        for sha256 in self.board.store.blob_bytes():
            assert self.board.store.layout.blob(sha256).read_bytes() == CONTENTS[sha256]

    @invariant()
    def transitions_are_bounded(self) -> None:
        state = self.board.state
        assert state.at_rest
        assert (state.attempts, state.transitions) == (0, 0)
        assert self.board.transitions_seen_max <= TRANSITIONS_MAX
        assert self.board.attempts_seen_max <= ATTEMPTS_MAX


def is_of_the_disk(what: str, where: object, state: State) -> bool:
    return isinstance(where, Path)


def write(board: Board, blob: Blob, chunks: set[int]) -> None:
    """A stream that breaks after these chunks."""
    upload = board.store.begin_upload(blob)
    if upload is None:
        return
    try:
        data = CONTENTS[blob.sha256]
        for index in sorted(chunks - upload.present):
            start = blob.offsets[index]
            upload.write_chunk(index, data[start : start + blob.chunks[index][1]])
    finally:
        board.store.end_upload(upload)


def run_machine(examples: int, steps: int, *, derandomize: bool) -> None:
    run_state_machine_as_test(
        LifecycleMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=derandomize,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_is_asked_and_whenever_the_board_dies_it_is_as_the_model_says() -> None:
    run_machine(60, 30, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_in_a_long_search_too() -> None:
    run_machine(500, 50, derandomize=False)
