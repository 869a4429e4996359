"""Owns the engine that serves and, during a warm swap, the one that is to replace it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edgewright.errors import EdgewrightError, OutsideError
from edgewright.manifest import MemoryPrediction
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.contents import check_contents
from edgewright_agent.deployment.fair_request_slots import RequestSlots
from edgewright_agent.engines import Death, Engine
from edgewright_agent.runtime.failures import is_rot
from edgewright_agent.runtime.threads import run_in_thread, within
from edgewright_agent.store import StagedRelease, Store

SWITCH_SECONDS_MAX = 120.0  # to read an adapter of a few MB, from the slowest SD card
DRAIN_SECONDS = 10.0  # what a replaced engine's requests under way are given
WARM_RESERVE_BYTES = 256 * 1024 * 1024  # left to everybody else while two engines run

StartEngine = Callable[[StagedRelease], Awaitable[Engine]]
# Makes what the release's engine needs to start, once. Gets the bytes that running engines take, and whom to tell.
PrepareEngine = Callable[[StagedRelease, int, Callable[[str], None]], Awaitable[None]]


@dataclass(frozen=True)
class ServingRelease:
    """A release and the engine that serves it."""

    release: StagedRelease
    engine: Engine
    slots: RequestSlots

    def blames_requests(self, death: Death) -> bool:
        """Whether clients' requests may have caused this death, so that it says nothing of the release.

        Without a request an engine does what it did in its probation. A client may leave before the engine falls
        over its request, so every request since the start counts.
        """
        return death.is_of_requests or self.slots.admitted > 0


async def nothing_to_prepare(
    release: StagedRelease, taken_bytes: int, on_preparing: Callable[[str], None]
) -> None:
    """Prepares nothing."""


CheckServing = Callable[[StagedRelease], None]
OnServing = Callable[["ServingRelease | None"], Awaitable[None]]


class EngineManager:
    """Owns every engine process, and holds each until it has certainly ended."""

    def __init__(
        self,
        store: Store,
        start_engine: StartEngine,
        on_serving: OnServing,
        check_serving: CheckServing = lambda release: None,
        *,
        prepare_engine: PrepareEngine = nothing_to_prepare,
        on_preparing: Callable[[str], None] = lambda step: None,
    ) -> None:
        """`check_serving` raises for a release that no engine may be started with. `on_preparing` gets each step of a
        preparation, and "" at its end.
        """
        self._store = store
        self._prepare_engine = prepare_engine
        self._on_preparing = on_preparing
        self._start_engine = start_engine
        self._on_serving = on_serving
        self._check_serving = check_serving
        self._running: list[Engine] = []
        self._loaded: dict[Engine, str] = {}  # the release whose model it holds; left out: unsure, it must go
        self._checked: set[str] = set()  # releases whose contents may be given to an engine
        self.serving: ServingRelease | None = None

    def serves(self, release: StagedRelease) -> bool:
        """Whether requests are answered by this very release."""
        return self._keeps(release.digest)

    def holds_model_of(self, release: StagedRelease) -> bool:
        """Whether the serving engine holds this release's model, so that only the adapter differs."""
        return self.serving is not None and self._loaded.get(self.serving.engine) == release.base

    def _keeps(self, digest: str | None) -> bool:
        serving = self.serving
        return serving is not None and serving.release.digest == digest and serving.engine in self._loaded

    @property
    def running(self) -> ServingRelease:
        """The release that serves, and its engine."""
        assert self.serving is not None, "asked only while a release serves"
        return self.serving

    def has_room_beside(self, candidate: StagedRelease, budget_bytes: int, available_bytes: int) -> bool:
        """Whether the candidate needs an engine of its own, and fits beside the serving one as measured."""
        if self.serving is None or self.serves(candidate) or self.holds_model_of(candidate):
            return False
        predicted = self.serving.release.manifest.memory
        now_bytes = self.serving.engine.memory().now_bytes
        return warm_swap_fits(candidate.manifest.memory, predicted, now_bytes, budget_bytes, available_bytes)

    async def bring_up(self, release: StagedRelease, *, beside: bool) -> ServingRelease:
        """Returns an engine with this release that gets no requests yet: `beside` the serving one or instead of it.

        If the serving engine holds the model, it changes its adapter and goes on serving. What is about to be loaded
        is read and verified first, and prepared if need be, while the other still serves. Raises as
        `Store.verify_release`, `PrepareEngine`, `StartEngine` and `Engine.use_adapter`.
        """
        if self.serving is not None and self.serves(release):
            return self.serving
        await run_in_thread(self._verify, release)
        if self.holds_model_of(release):
            return await self._switch(release)
        if release.base != release.digest:
            await run_in_thread(self._verify, self._store.release(release.base))
        await self._prepare(release)
        if not beside:
            await self.stop()
        engine = await self._start_engine(release)
        self._running.append(engine)
        self._loaded[engine] = release.base
        return _serving(release, engine)

    async def _prepare(self, release: StagedRelease) -> None:
        taken_bytes = sum(engine.memory().now_bytes for engine in self._running)
        try:
            await self._prepare_engine(release, taken_bytes, self._on_preparing)
        finally:
            self._on_preparing("")

    def refusal(self, digest: str | None) -> str | None:
        """Returns why no engine may be started with this release, as a sentence; None if one may, or it is not here.

        None also if it is damaged on the disk: its start says so, and the board goes back.
        """
        staged = self._store.releases()
        release = staged.get(digest or "")
        try:
            for needed in () if release is None else (staged.get(release.base, release), release):
                self._check_serving(needed)
        except EdgewrightError as error:
            return None if is_rot(error) else str(error)
        return None

    def _verify(self, release: StagedRelease) -> None:
        """Verifies the release's bytes, and once its contents: an earlier agent may have staged what this one
        refuses.
        """
        self._check_serving(release)
        self._store.verify_release(release)
        if release.digest not in self._checked:
            check_contents(release.manifest, lambda file: release.tree / file.path)
            self._checked.add(release.digest)

    async def serve(self, release: StagedRelease) -> None:
        """Brings the release up instead of what serves, and sends requests to it. Raises as `bring_up`."""
        await self.show(await self.bring_up(release, beside=False))

    async def show(self, serving: ServingRelease) -> None:
        """Sends requests to `serving` from now on. The engine before it finishes its requests and ends."""
        before, self.serving = self.serving, serving
        if before is not serving:  # else its requests are being counted
            await self._on_serving(serving)
        if before is not None and before.engine is not serving.engine:
            await before.slots.drain(DRAIN_SECONDS)
        await self._stop_others(serving.engine)

    async def keep_only(self, digest: str | None) -> None:
        """Stops every engine but the serving one, and the serving one too unless it serves this release."""
        if self.serving is None or not self._keeps(digest):
            await self.stop()
        else:
            await self._stop_others(self.serving.engine)

    async def stop(self) -> None:
        """Stops every engine."""
        if self.serving is not None:
            self.serving = None
            await self._on_serving(None)
        await self._stop_others(None)

    async def _switch(self, release: StagedRelease) -> ServingRelease:
        assert self.serving is not None, "see holds_model_of"
        engine = self.serving.engine
        del self._loaded[engine]  # cancelled or failed half-way, the engine has to go
        await _in_time(engine.use_adapter(release.adapter, release.manifest.name))
        self._loaded[engine] = release.base
        switched = _serving(release, engine)
        self.serving = switched
        await self._on_serving(switched)
        return switched

    async def _stop_others(self, kept: Engine | None) -> None:
        for engine in [engine for engine in self._running if engine is not kept]:
            await engine.stop()
            if engine in self._running:  # a revocation may have stopped it meanwhile
                self._running.remove(engine)
            self._loaded.pop(engine, None)


def warm_swap_fits(
    candidate: MemoryPrediction,
    serving: MemoryPrediction,
    serving_now_bytes: int,
    budget_bytes: int,
    available_bytes: int,
) -> bool:
    """Whether two engines fit beside each other: in the budget, and in the memory that is free now.

    Both count with the upper end of their predictions. A swap that turns out too tight would kill the engine that
    answers requests. A swap that is refused is cold, and only costs time.
    """
    serving_bound_bytes = max(serving_now_bytes, serving.bound_bytes)
    growth_bytes = candidate.bound_bytes + serving_bound_bytes - serving_now_bytes
    in_memory = growth_bytes + WARM_RESERVE_BYTES <= available_bytes
    return in_memory and candidate.bound_bytes + serving_bound_bytes <= budget_bytes


async def _in_time(switching: Awaitable[None]) -> None:
    """Waits for the switch. Raises OutsideError (`ENGINE_FAILED`) if the engine hangs."""
    try:
        await within(SWITCH_SECONDS_MAX, switching)
    except asyncio.TimeoutError:
        message = (
            f"The engine did not change its adapter within {SWITCH_SECONDS_MAX:g} s: it hangs. It is ended and started "
            "again."
        )
        raise OutsideError(message, Reason.REASON_ENGINE_FAILED) from None


def _serving(release: StagedRelease, engine: Engine) -> ServingRelease:
    return ServingRelease(release, engine, RequestSlots(engine.slots(release.manifest.limits.concurrency)))
