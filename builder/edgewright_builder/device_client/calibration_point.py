"""What a board has measured of the release it serves, as a point to calibrate from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from edgewright.errors import RefusedError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.fit.board_points import MeasuredPoint, point_from_basis
from edgewright_builder.fit.memory import Configuration, load_calibration, predict_memory
from edgewright_builder.fit.speed import MeasuredDecode, bytes_per_token

ANSWER_TOKENS_MAX = 64
TIMED_PROMPTS, TIMED_PROMPT_TOKENS, TIMED_ANSWER_TOKENS = 3, 32, 128


@dataclass(frozen=True)
class BoardPoint:
    """A measured point, and where it was measured."""

    board: str
    machine: str  # aarch64, x86_64
    engine: str
    engine_version: str
    point: MeasuredPoint


async def measured_point(client: DeviceClient, *, fill: bool) -> BoardPoint:
    """Returns the peak of the active release; `fill` has the board use its whole context first, and times it.

    Raises RefusedError where nothing is served, nothing was measured, or the release does not say what it is.
    """
    device, active = await client.get_device(), await _active_release(client)
    version = next((each.version for each in device.engines if each.kind == active.engine), "")
    unmeasured = planned_point(active)
    decode = None
    if fill:
        await use_whole_context(client, unmeasured.configuration)
        decode = await time_decoding(client, active.engine, unmeasured)
    memory = await _measured_memory(client)
    point = replace(
        unmeasured, measured_peak_bytes=memory.engine_peak_bytes, measure=memory.engine_measure, decode=decode
    )
    return BoardPoint(device.profile_id, device.machine, active.engine, version, point)


def planned_point(release: deployment.Release) -> MeasuredPoint:
    """Returns what the release was planned from, not measured yet; raises RefusedError if it does not say."""
    try:
        basis = json.loads(release.prediction_basis or "{}")
    except (ValueError, RecursionError):
        basis = {}
    return point_from_basis(release.release.hex(), basis if isinstance(basis, dict) else {}, 0, "")


async def use_whole_context(client: DeviceClient, m: Configuration) -> None:
    """Sends as many requests at once as the release serves and one alone, each as long as it may be."""
    answer = min(ANSWER_TOKENS_MAX, max(1, m.context_tokens // 4))
    request = telemetry.RunBenchmarkRequest(
        prompts=m.concurrency + 1, input_tokens=m.context_tokens - answer, output_tokens=answer,
        concurrency=m.concurrency,
    )  # fmt: skip
    async for _ in client.run_benchmark(request):
        pass


async def time_decoding(client: DeviceClient, engine: str, point: MeasuredPoint) -> MeasuredDecode | None:
    """Time and energy per token of requests one at a time; None where no request got as far as a second token."""
    m = point.configuration
    request = telemetry.RunBenchmarkRequest(
        prompts=TIMED_PROMPTS, input_tokens=min(TIMED_PROMPT_TOKENS, m.context_tokens // 2),
        output_tokens=min(TIMED_ANSWER_TOKENS, m.context_tokens // 2), concurrency=1,
    )  # fmt: skip
    result = None
    async for event in client.run_benchmark(request):
        result = event.result if event.HasField("result") else result
    if result is None or not result.time_per_output_token_seconds.p50:
        return None
    memory = predict_memory(point.architecture, m, load_calibration(engine))
    used_tokens = result.input_tokens + result.output_tokens // 2
    cached_bytes = memory.kv_cache_bytes * used_tokens // (m.context_tokens * m.concurrency)
    snapshot = await client.get_snapshot()
    return MeasuredDecode(
        bytes_per_token=bytes_per_token(memory, cached_bytes),
        tpot_seconds=result.time_per_output_token_seconds.p50,
        joules_per_token=_decode_joules(result),
        power_mode=snapshot.power_mode if snapshot.HasField("power_mode") else None,
    )


def _decode_joules(result: telemetry.BenchmarkResult) -> float | None:
    """Returns the whole board's joules, idle power included; None where no sensor covers it, or it had a gap."""
    if not result.energy.whole_module or not result.energy.HasField("phases"):
        return None
    return result.energy.phases.decode_joules_per_output_token or None


async def _active_release(client: DeviceClient) -> deployment.Release:
    releases, snapshot = await client.list_releases(), await client.get_snapshot()
    for release in releases:
        if release.release and release.release == snapshot.active_release:
            return release
    raise RefusedError(f"{client.address} serves no release, so there is nothing to calibrate from.")


async def _measured_memory(client: DeviceClient) -> telemetry.Memory:
    snapshot = await client.get_snapshot()
    if not snapshot.memory.HasField("engine_peak_bytes"):
        raise RefusedError(f"{client.address} has not measured its engine's peak memory.")
    if not snapshot.serving.requests:
        raise RefusedError(
            f"{client.address} has served no request since the release was started, so its peak is not reached; "
            "leave out --as-served."
        )
    return snapshot.memory
