"""A device profile drafted from a live board: what was measured there, and what only a datasheet tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgewright.v1.deployment_pb2 import GetDeviceResponse
from edgewright.v1.telemetry_pb2 import Snapshot
from edgewright_agent.doctor.probe import guess_profile, probe
from edgewright_profiles import DeviceProfile, list_profiles, load_profile
from edgewright_profiles.schema import ENGINE_KINDS
from edgewright_profiles.this_host import THIS_HOST

RESERVE_BYTES = 512 * 1024 * 1024
DATASHEET = (
    "memory.nominal_bytes", "memory.os_desktop_bytes", "cpu", "power_modes.*.bandwidth_bytes_per_second", "gpu",
    "jetpacks",
)  # fmt: skip


@dataclass(frozen=True)
class ProfileDraft:
    """A profile as far as it is known."""

    document: dict[str, Any]  # as its YAML holds it
    nearest: DeviceProfile
    why_nearest: str
    missing: tuple[str, ...]  # figures the schema asks for or a user will want, to be filled in by hand


def draft_here() -> ProfileDraft:
    """Drafts this machine's profile, complete: memory and bandwidth are measured."""
    probed, here = probe(), load_profile("this-host")
    document = here.model_dump(mode="json", exclude_none=True) | {"id": "my-board", "name": "My board"}
    return ProfileDraft(document, load_profile(probed.profile_id), probed.profile_reason, ("gpu", "jetpacks"))


def draft_of(device: GetDeviceResponse, snapshot: Snapshot) -> ProfileDraft:
    """Drafts the profile of the board an agent runs on. Bandwidth and what is soldered on can't be asked for."""
    nearest, why = guess_profile(device.board_model, (), "", device.memory_total_bytes)
    if nearest.id == THIS_HOST and device.profile_id in list_profiles():
        nearest, why = load_profile(device.profile_id), "the agent was started with it"
    return ProfileDraft(_document(device, snapshot), nearest, why, DATASHEET)


def _document(device: GetDeviceResponse, snapshot: Snapshot) -> dict[str, Any]:
    mode = snapshot.power_mode if snapshot.HasField("power_mode") else "default"
    return {
        "schema_version": "edgewright.profile.v2",
        "id": "my-board",
        "name": device.board_model or "My board",
        "soc": device.board_model or device.machine,
        "machine": device.machine,
        "memory": _memory(device),
        "cpu_cores": _measured(device, device.cpu_cores),
        "power_modes": [{"name": mode}],
        "default_power_mode": mode,
        "sensors": _sensors(device, snapshot),
        "engines": _engines(device),
        "detect": {"model": [device.board_model] if device.board_model else []},
    }


def _memory(device: GetDeviceResponse) -> dict[str, Any]:
    used_bytes = max(1, device.memory_total_bytes - device.memory_available_bytes)
    return {
        "seen_bytes": _measured(device, device.memory_total_bytes),
        "os_headless_bytes": _measured(device, used_bytes),
        "reserve_bytes": {
            "value": min(RESERVE_BYTES, max(1, device.memory_available_bytes // 4)),
            "source": "Edgewright's default: 512 MiB, at most a quarter of what is available",
            "confidence": "computed",
        },
    }


def _sensors(device: GetDeviceResponse, snapshot: Snapshot) -> list[dict[str, Any]]:
    rails: dict[str, list[str]] = {}
    for rail in snapshot.energy:
        rails.setdefault(rail.source, []).append(rail.name)
    return [{"kind": kind, "rails": _measured(device, names)} for kind, names in sorted(rails.items())]


def _engines(device: GetDeviceResponse) -> list[dict[str, Any]]:
    return [
        {
            "kind": engine.kind,
            "supported": _measured(device, engine.available),
            "detail": engine.detail or engine.version or "as the agent found it",
        }
        for engine in device.engines
        if engine.kind in ENGINE_KINDS
    ]


def _measured(device: GetDeviceResponse, value: Any) -> dict[str, Any]:
    source = f"the agent on {device.hostname or 'the board'}, asked by `edgewright profiles detect`"
    return {"value": value, "source": source, "confidence": "measured"}
