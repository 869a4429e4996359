"""How fast a board serves: measured there, without the link, and from here, with it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgewright.v1.common_pb2 import Reason
from edgewright.v1.inference_pb2 import GenerateRequest
from edgewright.v1.telemetry_pb2 import BenchmarkProgress, BenchmarkResult, RunBenchmarkRequest
from edgewright_agent.errors import InputError, OutsideError
from edgewright_builder.device.client import DeviceClient


@dataclass(frozen=True)
class HostView:
    """Medians over a few requests, on this machine's clock: what a caller over the network sees."""

    requests: int
    prompt_tokens: int
    time_to_first_token_seconds: float
    time_per_output_token_seconds: float | None  # None: fewer than two tokens came


async def run_benchmark(
    client: DeviceClient,
    request: RunBenchmarkRequest,
    on_progress: Callable[[BenchmarkProgress], None] = lambda progress: None,
) -> BenchmarkResult:
    """Runs a benchmark on the board; raises the client's errors."""
    async for event in client.run_benchmark(request):
        if event.HasField("result"):
            return event.result
        on_progress(event.progress)
    raise OutsideError(f"{client.address} ended the benchmark without a result; see the agent's log.")


async def host_view(client: DeviceClient, *, words: int, max_tokens: int, requests: int = 3) -> HostView:
    """Streams greedy completions one after the other and times them here.

    How many tokens a word is depends on the model; the prompt is halved until it fits the context.
    """
    request = GenerateRequest(prompt="word " * words, max_tokens=max_tokens, ignore_eos=True)
    try:
        timings = [await _time_one(client, request) for _ in range(requests)]
    except InputError as error:
        if error.reason != Reason.REASON_CONTEXT_EXCEEDED or words < 2:
            raise
        return await host_view(client, words=words // 2, max_tokens=max_tokens, requests=requests)
    steps = [step for _, step, _ in timings if step is not None]
    return HostView(
        requests,
        timings[0][2],
        statistics.median(first for first, _, _ in timings),
        statistics.median(steps) if steps else None,
    )


async def _time_one(client: DeviceClient, request: GenerateRequest) -> tuple[float, float | None, int]:
    """(TTFT, TPOT, prompt tokens) of one request; TPOT = (last − first) / (n − 1)."""
    arrivals: list[float] = []
    prompt_tokens = 0
    begin = time.perf_counter()
    async for event in client.generate(request):
        if event.HasField("delta"):
            arrivals.append(time.perf_counter())
        else:
            prompt_tokens = event.completion.prompt_tokens
    if not arrivals:
        raise OutsideError(f"{client.address} answered without a token; see the agent's log.")
    steps = len(arrivals) - 1
    per_token = (arrivals[-1] - arrivals[0]) / steps if steps else None
    return arrivals[0] - begin, per_token, prompt_tokens
