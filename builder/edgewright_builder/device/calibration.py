"""What a board has measured of the release it serves, as a point to calibrate from."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgewright_agent.errors import RefusedError
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.fit.calibrate import MeasuredPoint, point_from_basis


@dataclass(frozen=True)
class BoardPoint:
    """A measured point, and where it was measured."""

    board: str
    engine: str
    engine_version: str
    point: MeasuredPoint


async def measured_point(client: DeviceClient) -> BoardPoint:
    """The peak of the active release. Raises RefusedError where nothing was measured or nothing is served."""
    device, releases, snapshot = (
        await client.get_device(), await client.list_releases(), await client.get_snapshot(),
    )  # fmt: skip
    active = next(
        (each for each in releases if each.release and each.release == snapshot.active_release), None
    )
    if active is None:
        raise RefusedError(f"{client.address} serves no release, so there is nothing to calibrate from.")
    if not snapshot.memory.HasField("engine_peak_bytes"):
        raise RefusedError(f"{client.address} has not measured its engine's peak memory.")
    if not snapshot.serving.requests:
        raise RefusedError(
            f"{client.address} has served no request since the release was started, so its peak is not reached; "
            "run `edgewright bench` with the whole context first."
        )
    version = next((each.version for each in device.engines if each.kind == active.engine), "")
    point = point_from_basis(
        active.release.hex(),
        json.loads(active.prediction_basis or "{}"),
        snapshot.memory.engine_peak_bytes,
        snapshot.memory.engine_measure,
    )
    return BoardPoint(device.profile_id, active.engine, version, point)
