"""Drives engines and store through the rules of `lifecycle`: swap, probes, commit or roll back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Set
from dataclasses import dataclass

from edgewright.v1.common_pb2 import Reason
from edgewright_agent import lifecycle
from edgewright_agent.engine_room import EngineRoom, OnServing, Serving, StartEngine
from edgewright_agent.errors import EdgewrightError, OutsideError, RefusedError
from edgewright_agent.lifecycle import Phase, State
from edgewright_agent.probation import (
    PROBES_SECONDS_MAX,
    Probe,
    Senses,
    Trial,
    memory_probes,
    run_probes,
)
from edgewright_agent.store import StagedRelease, Store
from edgewright_agent.store.bases import servable
from edgewright_agent.threads import run_in_thread
from edgewright_agent.withdrawal import without_stopped

_log = logging.getLogger(__name__)

RESTART_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Status:
    """One step of a change, as watchers see it."""

    state: State
    probes: tuple[Probe, ...] = ()


class Deployer:
    """The only writer of the state and the only owner of engines. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        start_engine: StartEngine,
        *,
        budget_bytes: int,
        probation_seconds: float = 0.0,
        restart_seconds: float = 1.0,
        on_serving: OnServing,
        senses: Senses = Senses(),
    ) -> None:
        self._store = store
        self._room = EngineRoom(start_engine, on_serving)
        self._budget_bytes = budget_bytes
        self._probation_seconds = probation_seconds
        self._restart_seconds = restart_seconds
        self._senses = senses
        self._status = Status(_saved_state(store))
        self._confirmed = asyncio.Event()
        self._watchers: set[asyncio.Queue[Status]] = set()
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """Where the board is."""
        return self._status.state

    def serving(self) -> Serving:
        """What answers requests.

        Raises RefusedError (`NO_ACTIVE_RELEASE`), OutsideError (`ENGINE_FAILED`: it is being restarted).
        """
        if self._room.serving is not None:
            return self._room.serving
        if self.state.serves is not None:
            message = f"The engine of release {self.state.serves[:12]} is being restarted. Try again soon."
            raise OutsideError(message, Reason.REASON_ENGINE_FAILED)
        message = "No release is being served. Activate one, or wait for the change under way."
        raise RefusedError(message, Reason.REASON_NO_ACTIVE_RELEASE)

    def kernels(self) -> tuple[str, ...]:
        """What the serving engine says it multiplies with; empty if nothing serves or it does not say."""
        return () if self._room.serving is None else tuple(self._room.serving.engine.kernels())

    async def start(self, stopped: Set[str] = frozenset()) -> None:
        """Finishes what a stopped agent left under way, then serves the active release, unless in `stopped`."""
        whole = servable(self._store.releases())
        state = lifecycle.recovered(lifecycle.without_lost(self.state, whole))
        state = without_stopped(state, whole, stopped)
        if state != self.state:
            await self._save(state)
        self._run()

    async def stop(self) -> None:
        """Stops the engine. A change under way goes on at the next start."""
        await self._halt()
        if self.state.starts and self._room.serving is not None:  # it did not end by itself
            await self._try_to_save(lifecycle.steady(self.state))
        await self._room.stop()

    async def staged(self, digest: str) -> None:
        """A release has come and waits to be activated."""
        async with self._changing:
            state = lifecycle.staged(self.state, digest)
            if state != self.state:
                await self._save(state)

    async def activate(
        self, digest: str, *, force: bool = False, confirm_within_seconds: float = 0.0
    ) -> None:
        """Begins to activate a staged release. Raises as `lifecycle.activate`, and `RELEASE_UNKNOWN`."""
        async with self._changing:
            counter = self._store.release(digest).manifest.release_counter
            if self.state.at_rest and digest == self.state.active:
                return
            state = lifecycle.activate(
                self.state, digest, counter, force=force, confirm_within_seconds=confirm_within_seconds
            )
            await self._change(state)

    async def confirm(self, digest: str) -> None:
        """Keeps the candidate that waits for it. Raises RefusedError (`NOT_AWAITING_CONFIRMATION`)."""
        state = self.state
        if state.at_rest and digest == state.active:
            return
        if not state.awaiting_confirmation or digest != state.candidate:
            message = (
                f"Release {digest[:12]} is not waiting to be confirmed: {state.message or 'nothing is'}."
            )
            raise RefusedError(message, Reason.REASON_NOT_AWAITING_CONFIRMATION)
        self._confirmed.set()

    async def roll_back(self) -> str:
        """Begins to go back to the previous release; returns its digest. Raises as `lifecycle.roll_back`."""
        async with self._changing:
            state = lifecycle.roll_back(self.state)
            await self._change(state)
            return str(state.candidate)

    async def withdraw(self, stopped: Set[str]) -> None:
        """Stops serving and trying these releases now; goes back to the previous one if that may serve."""
        async with self._changing:
            if not self.state.in_use & stopped:
                return
            await self._halt()
            await self._save(without_stopped(self.state, servable(self._store.releases()), stopped))
            await self._room.stop()
            self._run()

    async def delete(self, digest: str) -> int:
        """Forgets a release that is not in use; returns the bytes freed."""
        async with self._changing:
            if digest in self.state.in_use:
                message = f"Release {digest[:12]} is active, previous or on trial; it can't be deleted."
                raise RefusedError(message, Reason.REASON_RELEASE_IN_USE)
            freed_bytes = await run_in_thread(self._store.delete_release, digest)
            if digest in self.state.denied or digest == self.state.staged:
                await self._save(lifecycle.forgotten(self.state, digest))
            return freed_bytes

    async def watch(self, *, follow: bool) -> AsyncIterator[Status]:
        """The status now, then each change; ends at rest unless `follow`."""
        queue: asyncio.Queue[Status] = asyncio.Queue()
        queue.put_nowait(self._status)
        self._watchers.add(queue)
        try:
            while True:
                status = await queue.get()
                yield status
                if status.state.at_rest and not follow:
                    return
        finally:
            self._watchers.discard(queue)

    async def _change(self, state: State) -> None:
        await self._save(state)  # first: the intent survives whatever comes
        await self._halt()
        self._run()

    def _run(self) -> None:
        self._task = asyncio.create_task(self._drive())
        self._task.add_done_callback(_report)

    async def _halt(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _drive(self) -> None:
        while True:
            await self._finish_change()
            if self.state.serves is None:
                return
            await self._supervise(self._store.release(self.state.serves))

    async def _finish_change(self) -> None:
        """Tries until the board is at rest. While the state can't be written nothing new is started."""
        pause_seconds = self._restart_seconds
        while not self.state.at_rest:
            try:
                if self.state.phase is Phase.PROBATION:  # its end could not be written
                    await self._save(lifecycle.recovered(self.state))
                else:
                    await self._try_candidate()
            except Exception as error:  # noqa: BLE001 - whatever it is, the board must come to rest
                _log_failure(f"the change can't go on; trying again in {pause_seconds:g} s", error)
                await self._serve_meanwhile()
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, RESTART_SECONDS_MAX)

    async def _serve_meanwhile(self) -> None:
        """The active release goes on serving although the change can't."""
        active = self._store.releases().get(self.state.active or "")
        if active is None or self._room.serving is not None:
            return
        try:
            await self._room.show(await self._bring_up(active, beside=False))
        except Exception as error:  # noqa: BLE001 - the change is tried again all the same
            _log_failure(f"release {active.digest}", error)

    async def _try_candidate(self) -> None:
        await self._save(lifecycle.attempt(self.state))  # first: while that fails, what serves goes on
        if self.state.candidate is None:
            return
        try:
            beside = await self._leave_room()
            trial = Trial(self._budget_bytes, self._senses, self._senses.out_of_memory_kills())
            serving = await self._bring_up(self._store.release(self.state.candidate), beside=beside)
            probing = self.state.phase is Phase.ACTIVATING
            if not (beside and probing):  # beside: the release before serves until this one has proved itself
                await self._room.show(serving)
            await self._save(lifecycle.started(self.state))
            if probing:
                await self._probe(serving, trial)
        except Exception as error:  # noqa: BLE001 - whatever it is, the board must come to rest
            _log_failure(f"starting {self.state.candidate}", error)
            await self._room.keep_only(self.state.active)
            await self._save(lifecycle.failed(self.state, str(error)), self._status.probes)

    async def _leave_room(self) -> bool:
        """Whether the serving engine goes on beside the candidate's; stops it where it can't."""
        candidate = self._store.releases().get(self.state.candidate or "")
        if candidate is None:
            await self._room.stop()
            return False
        if self._room.serves(candidate) or self._room.holds_model_of(candidate):
            return False
        available_bytes = self._senses.available_bytes()
        if self._room.has_room_beside(candidate, self._budget_bytes, available_bytes):
            return True
        await self._room.stop()
        return False

    async def _bring_up(self, release: StagedRelease, *, beside: bool) -> Serving:
        """Reads what the engine is about to load first: flash rots, and no altered byte may be served."""
        if not self._room.serves(release):
            await run_in_thread(self._store.verify_release, release)
            if release.base != release.digest and not self._room.holds_model_of(release):
                await run_in_thread(self._store.verify_release, self._store.release(release.base))
        return await self._room.bring_up(release, beside=beside)

    async def _probe(self, serving: Serving, trial: Trial) -> None:
        """Commits the candidate. Raises OutsideError if it fails a required probe."""
        probes = await _within(
            PROBES_SECONDS_MAX, run_probes(serving.engine, serving.release.manifest, trial)
        )
        self._tell(Status(self.state, probes))
        _require(probes)
        if self._probation_seconds:
            await _sit_out(serving, self._probation_seconds)
            probes = (*probes[:-2], *memory_probes(serving.engine, trial))
            _require(probes)
        await self._room.show(serving)
        if self.state.confirm_within_seconds and not await self._is_confirmed(serving, probes):
            await self._room.stop()
            await self._save(lifecycle.unconfirmed(self.state), probes)
            return
        await self._save(lifecycle.committed(self.state, self._active_counter()), probes)

    async def _is_confirmed(self, serving: Serving, probes: tuple[Probe, ...]) -> bool:
        """Waits for the host's word. Raises OutsideError if the engine dies meanwhile."""
        self._confirmed.clear()
        await self._save(lifecycle.awaiting(self.state), probes)
        watching = asyncio.create_task(_sit_out(serving, self.state.confirm_within_seconds))
        confirming = asyncio.create_task(self._confirmed.wait())
        try:
            await asyncio.wait((watching, confirming), return_when=asyncio.FIRST_COMPLETED)
            if not confirming.done():
                await watching
            return confirming.done()
        finally:
            watching.cancel()
            confirming.cancel()

    async def _supervise(self, release: StagedRelease) -> None:
        """Keeps the active release's engine running, with a growing pause; returns when it has to be given up."""
        pause_seconds = self._restart_seconds
        while True:
            try:
                if self._room.serving is None:
                    await self._count_start()
                    if self.state.serves != release.digest:
                        return
                    await self._room.show(await self._bring_up(release, beside=False))
                pause_seconds = await self._until_death(pause_seconds)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                _log_failure(f"release {release.digest}", error)
                if isinstance(error, EdgewrightError) and error.reason == Reason.REASON_STORE_CORRUPT:
                    await self._give_up(release)
                    return
            await self._room.stop()
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RESTART_SECONDS_MAX)

    async def _count_start(self) -> None:
        """A disk that takes no more writes is no reason to stop serving what was committed."""
        await self._try_to_save(lifecycle.starting(self.state))

    async def _give_up(self, release: StagedRelease) -> None:
        """The active release is corrupt on the disk: back to the one before it, if there is one."""
        whole = servable(self._store.releases()) - {release.digest}
        state = lifecycle.without_lost(self.state, whole)
        if not await self._try_to_save(state):
            self._tell(Status(state))  # the next start finds out again

    async def _until_death(self, pause_seconds: float) -> float:
        """The pause before the next start: the shortest again if the engine ran for a while."""
        engine = self.serving().engine
        steady = False
        try:
            death = await asyncio.wait_for(engine.wait(), RESTART_SECONDS_MAX)
        except asyncio.TimeoutError:
            steady = True
            if self.state.starts:
                await self._save(lifecycle.steady(self.state))
            death = await engine.wait()
        _log.error("the engine ended: %s; restarting it", death.sentence)
        return self._restart_seconds if steady else pause_seconds

    async def _save(self, state: State, probes: tuple[Probe, ...] = ()) -> None:
        await run_in_thread(self._store.state.write, state.to_json())
        _log.info("%s: %s", state.phase.value, state.message)
        self._tell(Status(state, probes))

    async def _try_to_save(self, state: State) -> bool:
        try:
            await self._save(state)
        except Exception as error:  # noqa: BLE001
            _log_failure("the state can't be written", error)
            return False
        return True

    def _tell(self, status: Status) -> None:
        self._status = status
        for queue in self._watchers:
            queue.put_nowait(status)

    def _active_counter(self) -> int:
        active = self._store.releases().get(self.state.active or "")
        return active.manifest.release_counter if active is not None else 0


def _saved_state(store: Store) -> State:
    saved = store.state.read()
    if saved is not None:
        return State.from_json(saved)
    return lifecycle.lost() if store.state.is_lost else State()


async def _sit_out(serving: Serving, seconds: float) -> None:
    """Waits so long. Raises OutsideError if the engine ends before."""
    try:
        death = await asyncio.wait_for(serving.engine.wait(), seconds)
    except asyncio.TimeoutError:
        return
    message = f"The engine ended during probation: {death.sentence}."
    raise OutsideError(message, Reason.REASON_ENGINE_FAILED)


async def _within(seconds: float, probing: Awaitable[tuple[Probe, ...]]) -> tuple[Probe, ...]:
    try:
        return await asyncio.wait_for(probing, seconds)
    except asyncio.TimeoutError:
        message = f"The probes did not end within {seconds:g} s: the engine hangs."
        raise OutsideError(message, Reason.REASON_ENGINE_FAILED) from None


def _require(probes: tuple[Probe, ...]) -> None:
    for probe in probes:
        if probe.required and not probe.passed:
            message = f"Probe {probe.name} failed: {probe.detail}."
            raise OutsideError(message, Reason.REASON_ENGINE_FAILED)


def _log_failure(what: str, error: Exception) -> None:
    """One line for what is expected to go wrong, a traceback for what is not."""
    expected = isinstance(error, (EdgewrightError, OSError))
    _log.error("%s: %s", what, error, exc_info=None if expected else error)


def _report(task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        if task.exception() is not None:
            _log.critical("the deployer stopped", exc_info=task.exception())
