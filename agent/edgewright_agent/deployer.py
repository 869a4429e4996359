"""Drives engine and store through the rules of `lifecycle`: cold swap, probes, commit or roll back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from edgewright.v1.common_pb2 import Reason
from edgewright_agent import lifecycle
from edgewright_agent.admission import Admission
from edgewright_agent.engines import Engine
from edgewright_agent.errors import EdgewrightError, OutsideError, RefusedError
from edgewright_agent.lifecycle import Phase, State
from edgewright_agent.probation import Probe, peak_memory, run_probes
from edgewright_agent.store import StagedRelease, Store
from edgewright_agent.threads import run_in_thread

_log = logging.getLogger(__name__)

RESTART_SECONDS_MAX = 60.0

StartEngine = Callable[[StagedRelease], Awaitable[Engine]]


@dataclass(frozen=True)
class Serving:
    """A release and the engine that serves it."""

    release: StagedRelease
    engine: Engine
    admission: Admission


OnServing = Callable[["Serving | None"], Awaitable[None]]


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
    ) -> None:
        self._store = store
        self._start_engine = start_engine
        self._budget_bytes = budget_bytes
        self._probation_seconds = probation_seconds
        self._restart_seconds = restart_seconds
        self._on_serving = on_serving
        self._status = Status(_saved_state(store))
        self._engine: Engine | None = None  # the one process; held until it is certainly gone
        self._serving: Serving | None = None
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
        if self._serving is not None:
            return self._serving
        if self.state.phase is Phase.IDLE and self.state.active is not None:
            message = f"The engine of release {self.state.active[:12]} is being restarted. Try again soon."
            raise OutsideError(message, Reason.REASON_ENGINE_FAILED)
        message = "No release is being served. Activate one, or wait for the change under way."
        raise RefusedError(message, Reason.REASON_NO_ACTIVE_RELEASE)

    async def start(self) -> None:
        """Finishes what a stopped agent left under way, then serves the active release."""
        state = lifecycle.recovered(lifecycle.without_lost(self.state, set(self._store.releases())))
        if state != self.state:
            await self._save(state)
        self._run()

    async def stop(self) -> None:
        """Stops the engine. A change under way goes on at the next start."""
        await self._halt()
        await self._stop_engine()

    async def activate(self, digest: str, *, force: bool = False) -> None:
        """Begins to activate a staged release. Raises as `lifecycle.activate`, and `RELEASE_UNKNOWN`."""
        async with self._changing:
            counter = self._store.release(digest).manifest.release_counter
            if self.state.at_rest and digest == self.state.active:
                return
            await self._change(lifecycle.activate(self.state, digest, counter, force=force))

    async def roll_back(self) -> str:
        """Begins to go back to the previous release; returns its digest. Raises as `lifecycle.roll_back`."""
        async with self._changing:
            state = lifecycle.roll_back(self.state)
            await self._change(state)
            return str(state.candidate)

    async def delete(self, digest: str) -> int:
        """Forgets a release that is not in use; returns the bytes freed."""
        async with self._changing:
            if digest in self.state.in_use:
                message = f"Release {digest[:12]} is active, previous or on trial; it can't be deleted."
                raise RefusedError(message, Reason.REASON_RELEASE_IN_USE)
            freed_bytes = await run_in_thread(self._store.delete_release, digest)
            if digest in self.state.denied:
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
        while not self.state.at_rest:
            await self._try_candidate()
        if self.state.phase is Phase.IDLE and self.state.active is not None:
            await self._supervise(self._store.release(self.state.active))

    async def _try_candidate(self) -> None:
        await self._stop_engine()
        await self._save(lifecycle.attempt(self.state))
        if self.state.candidate is None:
            return
        try:
            candidate = self._store.release(self.state.candidate)
            if candidate.digest != self.state.active:  # it may have lain on the disk for months
                await run_in_thread(self._store.verify, candidate.manifest)
            await self._serve(candidate)
            probing = self.state.phase is Phase.ACTIVATING
            await self._save(lifecycle.started(self.state))
            if probing:
                await self._probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, the board must come to rest
            if not isinstance(error, (EdgewrightError, OSError)):
                _log.exception("activating %s", self.state.candidate)
            await self._stop_engine()
            await self._save(lifecycle.failed(self.state, str(error)), self._status.probes)

    async def _probe(self) -> None:
        """Commits the candidate. Raises OutsideError if it fails a required probe."""
        serving = self.serving()
        probes = await run_probes(serving.engine, serving.release.manifest, self._budget_bytes)
        self._tell(Status(self.state, probes))
        _require(probes)
        if self._probation_seconds:
            await self._sit_out_probation(serving)
            probes = (*probes[:-1], peak_memory(serving.engine, self._budget_bytes))
            _require(probes)
        await self._save(lifecycle.committed(self.state, self._active_counter()), probes)

    async def _sit_out_probation(self, serving: Serving) -> None:
        try:
            death = await asyncio.wait_for(serving.engine.wait(), self._probation_seconds)
        except asyncio.TimeoutError:
            return
        raise OutsideError(
            f"The engine ended during probation: {death.sentence}.", Reason.REASON_ENGINE_FAILED
        )

    async def _supervise(self, release: StagedRelease) -> None:
        """Keeps the active release's engine running: restarts it with a growing pause when it dies."""
        pause_seconds = self._restart_seconds
        while True:
            try:
                if self._serving is None:
                    await self._serve(release)
                pause_seconds = await self._until_death(pause_seconds)
            except (EdgewrightError, OSError) as error:
                _log.error("release %s: %s", release.digest, error)
            await self._stop_engine()
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RESTART_SECONDS_MAX)

    async def _until_death(self, pause_seconds: float) -> float:
        """The pause before the next start: the shortest again if the engine ran for a while."""
        clock = asyncio.get_running_loop().time
        began = clock()
        death = await self.serving().engine.wait()
        _log.error("the engine ended: %s; restarting it", death.sentence)
        return self._restart_seconds if clock() - began > RESTART_SECONDS_MAX else pause_seconds

    async def _serve(self, release: StagedRelease) -> None:
        self._engine = await self._start_engine(release)
        self._serving = Serving(release, self._engine, Admission(release.manifest.limits.concurrency))
        await self._on_serving(self._serving)

    async def _stop_engine(self) -> None:
        if self._engine is not None:
            self._serving = None
            await self._on_serving(None)
            await self._engine.stop()
            self._engine = None

    async def _save(self, state: State, probes: tuple[Probe, ...] = ()) -> None:
        await run_in_thread(self._store.state.write, state.to_json())
        _log.info("%s: %s", state.phase.value, state.message)
        self._tell(Status(state, probes))

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


def _require(probes: tuple[Probe, ...]) -> None:
    for probe in probes:
        if probe.required and not probe.passed:
            message = f"Probe {probe.name} failed: {probe.detail}."
            raise OutsideError(message, Reason.REASON_ENGINE_FAILED)


def _report(task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        if task.exception() is not None:
            _log.critical("the deployer stopped", exc_info=task.exception())
