"""A benchmark on a board, in its agent, and the same load as callers on this machine see it, the link included."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from edgewright.errors import OutsideError, RefusedError
from edgewright.v1.deployment_pb2 import GetDeviceResponse, Release
from edgewright.v1.inference_pb2 import FINISH_REASON_STOP, GenerateRequest
from edgewright.v1.telemetry_pb2 import (
    BenchmarkProgress,
    BenchmarkResult,
    Distribution,
    RunBenchmarkRequest,
    Snapshot,
)
from edgewright_agent.benchmark import load as agent_load
from edgewright_agent.benchmark.load import BenchmarkPlan, Load
from edgewright_agent.benchmark.proto import load_to_proto
from edgewright_agent.engines import Finish, GenerationRequest, Token
from edgewright_agent.telemetry.proto import distribution_to_proto
from edgewright_agent.telemetry.serving import distribution
from edgewright_builder.bench.results import BenchSubject
from edgewright_builder.device_client.calibration_point import planned_point
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.messages import asking

OnProgress = Callable[[int, int, float], None]  # prompts done, of how many, tokens/s


async def run_on_board(client: DeviceClient, plan: BenchmarkPlan, on_progress: OnProgress) -> BenchmarkResult:
    """Runs the load once in the agent. Raises the board's refusals."""
    with asking("a benchmark"):
        request = RunBenchmarkRequest(
            prompts=plan.prompts, input_tokens=plan.input_tokens, output_tokens=plan.output_tokens,
            concurrency=plan.concurrency, warmup_prompts=plan.warmup_prompts, seed=plan.seed,
        )  # fmt: skip
    async for event in client.run_benchmark(request):
        if event.HasField("result"):
            return event.result
        now: BenchmarkProgress = event.progress
        on_progress(now.prompts_done, now.prompts_total, now.generated_tokens_per_second)
    raise OutsideError(f"{client.address} ended the benchmark without a result; see the agent's log.")


async def run_from_here(
    client: DeviceClient, plan: BenchmarkPlan, on_progress: OnProgress
) -> tuple[BenchmarkResult, Distribution]:
    """Returns the plan's load sent from this machine, on its clock; and what the link adds to each request's first
    token.
    """
    ours, theirs = _FirstTokens(), _FirstTokens()
    load = Load(plan, _generator(client, ours, theirs), time.perf_counter)
    await load.prepare()
    ours.seconds.clear()
    theirs.seconds.clear()
    async with aclosing(load.run()) as progress:
        async for event in progress:
            on_progress(event.prompts_done, event.prompts_total, event.generated_tokens_per_second)
    added = (here - there for here, there in zip(ours.seconds, theirs.seconds, strict=True))
    return load_to_proto(plan, load.measured()), distribution_to_proto(distribution(added))


class _FirstTokens:
    """TTFT of each request that ended well, in the order of their ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []


def _generator(client: DeviceClient, ours: _FirstTokens, theirs: _FirstTokens) -> agent_load.Generate:
    async def generate(request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        message = GenerateRequest(
            prompt=request.prompt or "", max_tokens=request.max_tokens, ignore_eos=request.ignore_eos
        )
        sent, first = time.perf_counter(), None
        async for event in client.generate(message):
            for delta in event.deltas:
                first = first or time.perf_counter()
                yield Token(delta.text, delta.token)
            if not event.HasField("completion"):
                continue
            done = event.completion
            if first is not None:
                ours.seconds.append(first - sent)
                theirs.seconds.append(done.time_to_first_token_seconds)
            stopped = done.finish_reason == FINISH_REASON_STOP
            yield Finish("stop" if stopped else "length", done.prompt_tokens, done.generated_tokens)

    return generate


def subject_of(
    address: str, device: GetDeviceResponse, releases: list[Release], snapshot: Snapshot
) -> BenchSubject:
    """Returns what the board serves, under which budget and in which power mode and clocks."""
    active = next((each for each in releases if each.release == snapshot.active_release), Release())
    versions = {engine.kind: engine.version for engine in device.engines}
    bits, at_16_bits = _weights(active)
    return BenchSubject(
        where=address,
        device=device.profile_id,
        model=f"{active.name} {active.version}".strip(),
        release=snapshot.active_release.hex(),
        precision=f"{bits}-bit weights" if bits else "",
        engine=f"{active.engine} {versions.get(active.engine, '')}".strip(),
        budget_bytes=snapshot.memory.budget_bytes or None,
        weights_16bit_bytes=at_16_bits,
        power_mode=snapshot.power_mode if snapshot.HasField("power_mode") else None,
        clocks_hertz={clock.unit: clock.hertz for clock in snapshot.clocks},
    )


def _weights(release: Release) -> tuple[int | None, int | None]:
    """Bits of the linear weights and bytes of all at 16 bits, where the manifest says; an adapter's does not."""
    with suppress(RefusedError):
        point = planned_point(release)
        shape = point.architecture.with_layers(point.configuration.layers)
        return point.configuration.weight_bits, shape.bf16_bytes
    return None, None
