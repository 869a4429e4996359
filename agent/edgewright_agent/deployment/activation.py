"""Tries a candidate: starts its engine, probes it, waits for the host to confirm it, and commits it or goes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.engine_manager import EngineManager, ServingRelease
from edgewright_agent.deployment.probes import (
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
from edgewright_agent.engines import Death, Engine
from edgewright_agent.runtime.failures import is_rot, is_shortage, is_untrusted, log_failure
from edgewright_agent.runtime.threads import within
from edgewright_agent.store import Store

_log = logging.getLogger(__name__)
# In which an engine may answer that has lost one of its processes, as vLLM's front end does.
DYING_SECONDS = 0.25
DEATH_SECONDS_MAX = 1.0  # from an engine's last answer until the kernel says how it ended


@dataclass(frozen=True)
class ActivationSettings:
    """The terms on which a candidate is tried."""

    budget_bytes: int
    probation_seconds: float = 0.0
    retry_seconds: float = 1.0  # the first pause while the state can't be written
    senses: BoardSensors = field(default_factory=BoardSensors)


class _BroughtDownError(OutsideError):
    """Clients' requests ended the candidate's trial, so the candidate is not to blame."""


class Activation:
    """Drives a change to its end, through `activation_rules`.

    A candidate answers clients once it has passed its probes, so that their load decides none. If their requests bring
    it down during its probation, it is tried once more without them: no client decides which release serves.
    """

    def __init__(
        self, store: Store, engines: EngineManager, progress: StateWriter, terms: ActivationSettings
    ) -> None:
        self._store = store
        self._engines = engines
        self._progress = progress
        self._terms = terms
        self._confirmed = asyncio.Event()
        self._alone = False  # whether the candidate is tried without clients until it is kept

    @property
    def _state(self) -> State:
        return self._progress.state

    def confirm(self) -> None:
        """Tells the change under way that the host keeps the candidate."""
        self._confirmed.set()

    async def finish(self) -> None:
        """Drives the change until the board is at rest. Starts nothing new while the state can't be written."""
        pause_seconds, self._alone = self._terms.retry_seconds, False
        while not self._state.at_rest:
            try:
                if self._state.phase is Phase.PROBATION:  # its end could not be written
                    await self._progress.apply(activation_rules.recovered)
                else:
                    await self._try_candidate()
            except Exception as error:  # noqa: BLE001 - whatever it is, the board must come to rest
                log_failure(_log, f"the change can't go on; trying again in {pause_seconds:g} s", error)
                await self._serve_meanwhile()
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, RESTART_SECONDS_MAX)

    async def _serve_meanwhile(self) -> None:
        """Serves what the board would go back to while the change can't go on."""
        back = self._store.releases().get(activation_rules.way_back(self._state) or "")
        if back is None or self._engines.serving is not None:
            return
        try:
            await self._engines.serve(back)
        except Exception as error:  # noqa: BLE001 - the change is tried again all the same
            log_failure(_log, f"release {back.digest}", error)

    async def _try_candidate(self) -> None:
        await self._progress.apply(activation_rules.attempt)  # first: while that fails, what serves goes on
        candidate = self._state.candidate
        if candidate is None:
            return
        try:
            await self._try(candidate)
        except _BroughtDownError as error:
            log_failure(_log, f"trying {candidate} again without clients", error)
            self._alone, why = True, str(error)
            await self._engines.keep_only(activation_rules.way_back(self._state))
            await self._progress.apply(lambda state: activation_rules.excused(state, why))
        except Exception as error:
            log_failure(_log, f"starting {candidate}", error)
            why, ended = str(error), _rule_of(error)
            await self._engines.keep_only(activation_rules.way_back(self._state))
            await self._progress.apply(lambda state: ended(state, why), self._progress.probes)
            if is_shortage(error) and not self._state.at_rest:
                raise  # what the board lacks may be there after a pause

    async def _try(self, digest: str) -> None:
        """Starts the candidate, and probes it unless it is a release that the board goes back to."""
        senses, candidate = self._terms.senses, self._store.release(digest)
        beside = self._engines.has_room_beside(candidate, self._terms.budget_bytes, senses.available_bytes())
        before = self._engines.serving
        kills = 0 if before is None else before.engine.out_of_memory_kills().count
        serving = await self._engines.bring_up(candidate, beside=beside)
        same_engine = before is not None and before.engine is serving.engine  # only the adapter changed
        trial = TrialConditions(self._terms.budget_bytes, senses, kills if same_engine else 0)
        if self._state.phase is not Phase.ACTIVATING:
            await self._engines.show(serving)
            await self._progress.apply(activation_rules.started)
            return
        await self._progress.apply(activation_rules.started)
        await self._probe(serving, trial, beside=beside)

    async def _probe(self, serving: ServingRelease, trial: TrialConditions, *, beside: bool) -> None:
        """Probes the candidate and commits it. Raises OutsideError if it fails a required probe.

        `beside`: the active release serves until the candidate has proved itself.
        """
        probes = await _within(PROBES_SECONDS_MAX, run_probes(serving.engine, serving.release, trial))
        self._progress.tell(self._state, probes)
        await _require_alive(serving, probes)
        if not (beside or self._alone):
            await self._engines.show(serving)
        if self._terms.probation_seconds:
            await _sit_out(serving, self._terms.probation_seconds)
            probes = (*probes[:-2], *memory_probes(serving.engine, trial))
            self._require_after_clients(serving, probes)
        await self._engines.show(serving)
        if self._state.confirm_within_seconds and not await self._is_confirmed(serving, probes):
            await self._engines.stop()
            await self._progress.apply(activation_rules.unconfirmed, probes)
            return
        counters = serving.release.manifest.release_counter, self._active_counter()
        await self._progress.apply(lambda state: activation_rules.committed(state, *counters), probes)

    async def _is_confirmed(self, serving: ServingRelease, probes: tuple[ProbeResult, ...]) -> bool:
        """Whether the host confirmed the candidate in time. Raises OutsideError if its engine dies by itself
        meanwhile.
        """
        self._confirmed.clear()
        await self._progress.apply(activation_rules.awaiting, probes)
        until_seconds = time.monotonic() + self._state.confirm_within_seconds
        confirming = asyncio.create_task(self._confirmed.wait())
        try:
            while not confirming.done():
                try:
                    await self._wait_for_confirmation(serving, confirming, until_seconds)
                except _BroughtDownError as error:
                    log_failure(_log, f"starting {serving.release.digest} again", error)
                    serving = await self._start_again(serving)
                else:
                    break
            return confirming.done()
        finally:
            confirming.cancel()

    async def _wait_for_confirmation(
        self, serving: ServingRelease, confirming: asyncio.Task[Any], until_seconds: float
    ) -> None:
        """Returns once the candidate is confirmed or the time is over. Raises as `_sit_out`."""
        watching = asyncio.create_task(_sit_out(serving, max(0.0, until_seconds - time.monotonic())))
        try:
            await asyncio.wait((watching, confirming), return_when=asyncio.FIRST_COMPLETED)
            if not confirming.done():
                await watching
        finally:
            watching.cancel()

    async def _start_again(self, serving: ServingRelease) -> ServingRelease:
        await self._engines.stop()
        await asyncio.sleep(self._terms.retry_seconds)
        again = await self._engines.bring_up(serving.release, beside=False)
        await self._engines.show(again)
        return again

    def _require_after_clients(self, serving: ServingRelease, probes: tuple[ProbeResult, ...]) -> None:
        """Raises as `_require`. What clients may have caused is probed again without them."""
        try:
            _require(probes)
        except OutsideError as error:
            if self._alone or not serving.slots.admitted:
                raise
            raise _BroughtDownError(f"While clients were served: {error}", error.reason) from error

    def _active_counter(self) -> int:
        active = self._store.releases().get(self._state.active or "")
        return active.manifest.release_counter if active is not None else 0


def _rule_of(error: Exception) -> Callable[[State, str], State]:
    """Returns the rule of `activation_rules` that says what the failure means for the candidate."""
    if is_rot(error) or is_untrusted(error):
        return activation_rules.rotted
    return activation_rules.hindered if is_shortage(error) else activation_rules.failed


async def _sit_out(serving: ServingRelease, seconds: float) -> None:
    """Waits for `seconds`. Raises OutsideError if the engine ends before."""
    try:
        death = await within(seconds, serving.engine.wait())
    except asyncio.TimeoutError:
        return
    message = f"The engine ended during probation: {death.sentence}."
    kind = _BroughtDownError if serving.blames_requests(death) else OutsideError
    raise kind(message, Reason.REASON_ENGINE_FAILED)


async def _require_alive(serving: ServingRelease, probes: tuple[ProbeResult, ...]) -> None:
    """Raises as `_require`. If the engine died of the probe, the message says how it ended."""
    try:
        _require(probes)
    except OutsideError as error:
        death = await _death_of(serving.engine)
        if death is None:
            raise
        message = f"{error} The engine ended during probation: {death.sentence}."
        raise OutsideError(message, Reason.REASON_ENGINE_FAILED) from error


async def _death_of(engine: Engine) -> Death | None:
    """Returns how the engine ended; None if it goes on answering, or if the kernel does not say it in time."""
    with contextlib.suppress(asyncio.TimeoutError):
        return await within(DYING_SECONDS, engine.wait())
    with contextlib.suppress(asyncio.TimeoutError):
        if await within(DEATH_SECONDS_MAX, engine.healthy()):
            return None
        return await within(DEATH_SECONDS_MAX, engine.wait())
    return None


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
