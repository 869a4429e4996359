"""The on-device benchmark: a load through the active release, with the memory and the energy it takes.

Energy per token is given twice: gross, all that the rail took, and net of what the board draws with the engine loaded
and idle. Prefill and decode are told apart on prompts that are served alone; overlapping requests can't be split.
Where other clients were served meanwhile, their energy is in the gross: there is no net then, and nothing was served
alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from edgewright_agent.benchmark.load import (
    BenchmarkPlan,
    BenchmarkProgress,
    Generate,
    Load,
    LoadMeasurement,
    LoadTally,
)
from edgewright_agent.engines import Finish
from edgewright_agent.telemetry.joule_counter import GAP_SECONDS
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry.types import EnergyMark, RequestSummary

IDLE_SECONDS = 30.0  # MLPerf Power and TokenPowerBench measure the idle baseline for as long
ALONE_PROMPTS = 4  # served one at a time after a concurrent load, to tell prefill from decode


@dataclass(frozen=True)
class PhaseEnergy:
    """Prefill (arrival to first token) and decode (first to last token) apart, of prompts served alone."""

    prompts: int
    prefill_joules_per_input_token: float
    decode_joules_per_output_token: float
    net_prefill_joules_per_input_token: float | None
    net_decode_joules_per_output_token: float | None


@dataclass(frozen=True)
class BenchmarkEnergy:
    """Energy of the run. Net is gross less what the board draws with the engine loaded and idle.

    The joules of a gap are in no counter: after one there is no gross, net or mean.
    """

    rail: str
    whole_module: bool
    gross_joules_per_output_token: float | None
    net_joules_per_output_token: float | None
    mean_watts: float | None
    baseline_watts: float | None
    samples: int
    gaps: int
    phases: PhaseEnergy | None


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark measured."""

    plan: BenchmarkPlan
    load: LoadMeasurement
    engine_peak_bytes: int | None
    energy: BenchmarkEnergy | None
    weights_bytes: int
    requests_together: int | None  # that share the engine's steps, of this length; None: not known
    throttle_events: int | None  # of the board during the run; None: it does not count them
    other_requests: int  # of other clients, served beside the run


async def run_benchmark(
    plan: BenchmarkPlan,
    generate: Generate,
    telemetry: Telemetry,
    *,
    context_tokens: int,
    weights_bytes: int,
    requests_together: int | None = None,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncGenerator[BenchmarkProgress | BenchmarkResult, None]:
    """Yields progress after each prompt, then the result. Closing the generator cancels what is running.

    Raises InputError for a plan the release can't serve, and the engine's error if every prompt failed.
    """
    plan.check(context_tokens)
    yield BenchmarkProgress(0, plan.prompts, 0.0)
    load = Load(plan, generate, telemetry.now, telemetry.energy_between)
    await load.prepare()
    start = await _start(telemetry, load, idle_seconds)
    async with aclosing(load.run()) as progress:
        async for event in progress:
            yield event
    measured = load.measured()
    memory = telemetry.engine_memory()
    energy, other_requests = await _energy_of(load, plan, telemetry, start)
    yield BenchmarkResult(
        plan=plan,
        load=measured,
        engine_peak_bytes=memory.peak_bytes if memory else None,
        energy=energy,
        weights_bytes=weights_bytes,
        requests_together=requests_together,
        throttle_events=_difference(start.throttle_events, telemetry.throttle_events()),
        other_requests=other_requests,
    )


@dataclass(frozen=True)
class _Start:
    """The board's counters as the load begins."""

    rail: str | None
    baseline_watts: float | None
    throttle_events: int | None
    others: _Others
    energy: EnergyMark | None


async def _start(telemetry: Telemetry, load: Load, idle_seconds: float) -> _Start:
    rail = _rail(telemetry)
    baseline_watts = await _idle_watts(telemetry, idle_seconds)
    throttle_events, others = telemetry.throttle_events(), _Others(telemetry, load)
    energy = await asyncio.to_thread(telemetry.sample_energy)
    return _Start(rail, baseline_watts, throttle_events, others, energy)


async def _energy_of(
    load: Load, plan: BenchmarkPlan, telemetry: Telemetry, start: _Start
) -> tuple[BenchmarkEnergy | None, int]:
    """Returns the energy of the load that has just ended, and the requests of other clients beside it."""
    after = await asyncio.to_thread(telemetry.sample_energy)
    gaps = _gaps(start.energy, after, telemetry.now())
    output_tokens, baseline_watts = load.measured().generated_tokens, start.baseline_watts
    phases = await _phases(load, plan, baseline_watts) if after is not None else None
    other_requests = start.others.count()
    if other_requests:
        phases = baseline_watts = None
    energy = _energy(start.energy, after, gaps, output_tokens, baseline_watts, phases)
    if _rail(telemetry) != start.rail:
        energy = None  # two rails' joules have no difference
    return energy, other_requests


class _Others:
    """Counts the requests that other clients have had served since it was made, or had under way then."""

    def __init__(self, telemetry: Telemetry, load: Load) -> None:
        self._telemetry, self._load = telemetry, load
        serving = telemetry.serving()
        self._requests_before = serving.requests - serving.requests_in_flight
        self._sent_before = load.prompts_sent

    def count(self) -> int:
        """Returns all that the board has accepted, less the prompts of the load."""
        ours = self._load.prompts_sent - self._sent_before
        return max(0, self._telemetry.serving().requests - self._requests_before - ours)


def _rail(telemetry: Telemetry) -> str | None:
    """Returns which rail speaks for the board: another one does once it is found."""
    energy = telemetry.energy()
    return None if energy is None else energy.name


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


async def _idle_watts(telemetry: Telemetry, seconds: float) -> float | None:
    """Returns the mean power while the engine is loaded; None after a request, without a sensor, or across a gap."""
    if telemetry.energy() is None or seconds <= 0:
        return None
    asked = telemetry.serving()
    before = await asyncio.to_thread(telemetry.sample_energy)
    await asyncio.sleep(seconds)
    after = await asyncio.to_thread(telemetry.sample_energy)
    if before is None or after is None or after.seconds == before.seconds:
        return None
    if _gaps(before, after, telemetry.now()):
        return None
    if asked.requests_in_flight or telemetry.serving().requests != asked.requests:
        return None
    return (after.rail.joules - before.rail.joules) / (after.seconds - before.seconds)


def _gaps(before: EnergyMark | None, after: EnergyMark | None, now_seconds: float) -> int:
    """Returns the stretches without a sample between the marks, and the one since then if it is as long."""
    if before is None or after is None:
        return 0
    return after.rail.gaps - before.rail.gaps + int(now_seconds - after.seconds > GAP_SECONDS)


async def _phases(load: Load, plan: BenchmarkPlan, baseline_watts: float | None) -> PhaseEnergy | None:
    if plan.callers == 1:
        return phase_energy(load.tally.served, baseline_watts)
    alone = LoadTally()
    await load.serve(min(ALONE_PROMPTS, plan.prompts), 1, alone)
    return phase_energy(alone.served, baseline_watts)


def phase_energy(
    served: Sequence[tuple[Finish, RequestSummary]], baseline_watts: float | None
) -> PhaseEnergy | None:
    """Returns the joules per token of each phase; None unless a request has energy and at least two tokens.

    The first token belongs to prefill, so decode is shared by the tokens after it.
    """
    read = decoded = used = 0
    prefill_joules = prefill_seconds = decode_joules = decode_seconds = 0.0
    for finish, summary in served:
        steps = finish.generated_tokens - 1
        first, each = summary.time_to_first_token_seconds, summary.time_per_output_token_seconds
        if summary.energy is None or first is None or each is None or not finish.prompt_tokens:
            continue
        used, read, decoded = used + 1, read + finish.prompt_tokens, decoded + steps
        prefill_joules, prefill_seconds = (
            prefill_joules + summary.energy.prefill_joules,
            prefill_seconds + first,
        )
        decode_joules, decode_seconds = (
            decode_joules + summary.energy.decode_joules,
            decode_seconds + each * steps,
        )
    if not used:
        return None
    idle = baseline_watts
    return PhaseEnergy(
        prompts=used,
        prefill_joules_per_input_token=prefill_joules / read,
        decode_joules_per_output_token=decode_joules / decoded,
        net_prefill_joules_per_input_token=None
        if idle is None
        else (prefill_joules - idle * prefill_seconds) / read,
        net_decode_joules_per_output_token=None
        if idle is None
        else (decode_joules - idle * decode_seconds) / decoded,
    )


def _energy(
    before: EnergyMark | None,
    after: EnergyMark | None,
    gaps: int,
    output_tokens: int,
    baseline_watts: float | None,
    phases: PhaseEnergy | None,
) -> BenchmarkEnergy | None:
    """Computes gross = joules / output tokens; net = (joules - baseline W · seconds) / output tokens."""
    if before is None or after is None or not output_tokens:
        return None
    joules, seconds = after.rail.joules - before.rail.joules, after.seconds - before.seconds
    if not gaps and not seconds:
        return None  # it was over before there was a sample
    net = None if gaps or baseline_watts is None else (joules - baseline_watts * seconds) / output_tokens
    return BenchmarkEnergy(
        rail=after.rail.name,
        whole_module=after.rail.whole_module,
        gross_joules_per_output_token=None if gaps else joules / output_tokens,
        net_joules_per_output_token=net,
        mean_watts=None if gaps else joules / seconds,
        baseline_watts=baseline_watts,
        samples=after.rail.samples - before.rail.samples,
        gaps=gaps,
        phases=phases,
    )
