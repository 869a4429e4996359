"""What a board has measured of the release it serves, as a point to calibrate from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_agent.errors import RefusedError
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.fit.calibrate import MeasuredPoint, point_from_basis
from edgewright_builder.fit.memory import Configuration

ANSWER_TOKENS_MAX = 64


@dataclass(frozen=True)
class BoardPoint:
    """A measured point, and where it was measured."""

    board: str
    engine: str
    engine_version: str
    point: MeasuredPoint


async def measured_point(client: DeviceClient, *, fill: bool) -> BoardPoint:
    """The peak of the active release; `fill` has the board use its whole context first.

    Raises RefusedError where nothing is served, nothing was measured, or the release does not say what it is.
    """
    device, active = await client.get_device(), await _active_release(client)
    version = next((each.version for each in device.engines if each.kind == active.engine), "")
    unmeasured = point_from_basis(active.release.hex(), json.loads(active.prediction_basis or "{}"), 0, "")
    if fill:
        await use_whole_context(client, unmeasured.configuration)
    memory = await _measured_memory(client)
    point = replace(unmeasured, measured_peak_bytes=memory.engine_peak_bytes, measure=memory.engine_measure)
    return BoardPoint(device.profile_id, active.engine, version, point)


async def use_whole_context(client: DeviceClient, m: Configuration) -> None:
    """As many requests at once as the release serves and one alone, each as long as it may be."""
    answer = min(ANSWER_TOKENS_MAX, max(1, m.context_tokens // 4))
    request = telemetry.RunBenchmarkRequest(
        prompts=m.concurrency + 1, input_tokens=m.context_tokens - answer, output_tokens=answer,
        concurrency=m.concurrency,
    )  # fmt: skip
    async for _ in client.run_benchmark(request):
        pass


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
