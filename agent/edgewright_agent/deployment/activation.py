"""Tries the candidate: starts its engine, probes it, waits for the host's word; commits it or goes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment import lifecycle
from edgewright_agent.deployment.engine_manager import EngineManager, ServingRelease
from edgewright_agent.deployment.probation import (
    PROBES_SECONDS_MAX,
    BoardSensors,
    ProbeResult,
    TrialConditions,
    memory_probes,
    run_probes,
)
from edgewright_agent.deployment.state import Phase, State
from edgewright_agent.deployment.state_writer import StateWriter
from edgewright_agent.deployment.supervision import RESTART_SECONDS_MAX
from edgewright_agent.runtime.failures import is_rot, is_shortage, is_untrusted, log_failure
from edgewright_agent.runtime.threads import within
from edgewright_agent.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActivationSettings:
    """The terms on which a candidate is tried."""

    budget_bytes: int
    probation_seconds: float = 0.0
    retry_seconds: float = 1.0  # the first pause while the state can't be written
    senses: BoardSensors = field(default_factory=BoardSensors)


class Activation:
    """Drives a change to its end, through the rules of `lifecycle`."""

    def __init__(
        self, store: Store, engines: EngineManager, progress: StateWriter, terms: ActivationSettings
    ) -> None:
        self._store = store
        self._engines = engines
        self._progress = progress
        self._terms = terms
        self._confirmed = asyncio.Event()

    @property
    def _state(self) -> State:
        return self._progress.state

    def confirm(self) -> None:
        """The host keeps the candidate that waits for it."""
        self._confirmed.set()

    async def finish(self) -> None:
        """Tries until the board is at rest. While the state can't be written nothing new is started."""
        pause_seconds = self._terms.retry_seconds
        while not self._state.at_rest:
            try:
                if self._state.phase is Phase.PROBATION:  # its end could not be written
                    await self._progress.apply(lifecycle.recovered)
                else:
                    await self._try_candidate()
            except Exception as error:  # noqa: BLE001 - whatever it is, the board must come to rest
                log_failure(_log, f"the change can't go on; trying again in {pause_seconds:g} s", error)
                await self._serve_meanwhile()
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, RESTART_SECONDS_MAX)

    async def _serve_meanwhile(self) -> None:
        """What the board would go back to serves although the change can't go on."""
        back = self._store.releases().get(lifecycle.way_back(self._state) or "")
        if back is None or self._engines.serving is not None:
            return
        try:
            await self._engines.serve(back)
        except Exception as error:  # noqa: BLE001 - the change is tried again all the same
            log_failure(_log, f"release {back.digest}", error)

    async def _try_candidate(self) -> None:
        await self._progress.apply(lifecycle.attempt)  # first: while that fails, what serves goes on
        candidate = self._state.candidate
        if candidate is None:
            return
        try:
            await self._try(candidate)
        except Exception as error:
            log_failure(_log, f"starting {candidate}", error)
            why, ended = str(error), _rule_of(error)
            await self._engines.keep_only(lifecycle.way_back(self._state))
            await self._progress.apply(lambda state: ended(state, why), self._progress.probes)
            if is_shortage(error) and not self._state.at_rest:
                raise  # what the board lacks may be there after a pause

    async def _try(self, digest: str) -> None:
        """Starts the candidate and, unless it is an old acquaintance, probes it."""
        senses, candidate = self._terms.senses, self._store.release(digest)
        beside = self._engines.has_room_beside(candidate, self._terms.budget_bytes, senses.available_bytes())
        before = self._engines.serving
        kills = 0 if before is None else before.engine.out_of_memory_kills().count
        serving = await self._engines.bring_up(candidate, beside=beside)
        same_engine = before is not None and before.engine is serving.engine  # only the adapter changed
        trial = TrialConditions(self._terms.budget_bytes, senses, kills if same_engine else 0)
        probing = self._state.phase is Phase.ACTIVATING
        if not (beside and probing):  # beside: the release before serves until this one has proved itself
            await self._engines.show(serving)
        await self._progress.apply(lifecycle.started)
        if probing:
            await self._probe(serving, trial)

    async def _probe(self, serving: ServingRelease, trial: TrialConditions) -> None:
        """Commits the candidate. Raises OutsideError if it fails a required probe."""
        probes = await _within(
            PROBES_SECONDS_MAX, run_probes(serving.engine, serving.release.manifest, trial)
        )
        self._progress.tell(self._state, probes)
        _require(probes)
        if self._terms.probation_seconds:
            await _sit_out(serving, self._terms.probation_seconds)
            probes = (*probes[:-2], *memory_probes(serving.engine, trial))
            _require(probes)
        await self._engines.show(serving)
        if self._state.confirm_within_seconds and not await self._is_confirmed(serving, probes):
            await self._engines.stop()
            await self._progress.apply(lifecycle.unconfirmed, probes)
            return
        counters = serving.release.manifest.release_counter, self._active_counter()
        await self._progress.apply(lambda state: lifecycle.committed(state, *counters), probes)

    async def _is_confirmed(self, serving: ServingRelease, probes: tuple[ProbeResult, ...]) -> bool:
        """Waits for the host's word. Raises OutsideError if the engine dies meanwhile."""
        self._confirmed.clear()
        await self._progress.apply(lifecycle.awaiting, probes)
        watching = asyncio.create_task(_sit_out(serving, self._state.confirm_within_seconds))
        confirming = asyncio.create_task(self._confirmed.wait())
        try:
            await asyncio.wait((watching, confirming), return_when=asyncio.FIRST_COMPLETED)
            if not confirming.done():
                await watching
            return confirming.done()
        finally:
            watching.cancel()
            confirming.cancel()

    def _active_counter(self) -> int:
        active = self._store.releases().get(self._state.active or "")
        return active.manifest.release_counter if active is not None else 0


def _rule_of(error: Exception) -> Callable[[State, str], State]:
    """What the failure means for the candidate."""
    if is_rot(error) or is_untrusted(error):
        return lifecycle.rotted
    return lifecycle.hindered if is_shortage(error) else lifecycle.failed


async def _sit_out(serving: ServingRelease, seconds: float) -> None:
    """Waits so long. Raises OutsideError if the engine ends before."""
    try:
        death = await within(seconds, serving.engine.wait())
    except asyncio.TimeoutError:
        return
    message = f"The engine ended during probation: {death.sentence}."
    raise OutsideError(message, Reason.REASON_ENGINE_FAILED)


async def _within(seconds: float, probing: Awaitable[tuple[ProbeResult, ...]]) -> tuple[ProbeResult, ...]:
    try:
        return await within(seconds, probing)
    except asyncio.TimeoutError:
        message = f"The probes did not end within {seconds:g} s: the engine hangs."
        raise OutsideError(message, Reason.REASON_ENGINE_FAILED) from None


def _require(probes: tuple[ProbeResult, ...]) -> None:
    for probe in probes:
        if probe.required and not probe.passed:
            message = f"Probe {probe.name} failed: {probe.detail.rstrip('.')}."
            raise OutsideError(message, Reason.REASON_ENGINE_FAILED)
