"""What a board reports of itself, as people read it. A sensor that is not there gives no line."""

from __future__ import annotations

from datetime import datetime, timezone

from edgewright.sizes import format_bytes
from edgewright.v1.telemetry_pb2 import Distribution, EnergyRail, Serving, Snapshot

Facts = list[tuple[str, str]]


def snapshot_facts(snapshot: Snapshot) -> Facts:
    """The snapshot as names and values."""
    return [
        ("release", snapshot.active_release.hex()[:12] or "none is being served"),
        *_serving(snapshot),
        *_memory(snapshot),
        *_energy(snapshot),
        *((f"temperature {reading.zone}", f"{reading.celsius:.1f} °C") for reading in snapshot.temperatures),
        *((f"clock {clock.unit}", f"{clock.hertz / 1e6:.0f} MHz") for clock in snapshot.clocks),
        *([("GPU load", f"{snapshot.gpu_load_ratio:.0%}")] if snapshot.HasField("gpu_load_ratio") else []),
        *(
            (f"slowed down, {each.cause.replace('_', ' ')}", f"{each.events} times since boot")
            for each in snapshot.throttling
        ),
        *([("power mode", snapshot.power_mode)] if snapshot.HasField("power_mode") else []),
        *((f"no {sensor.name}", sensor.detail) for sensor in snapshot.sensors if not sensor.available),
    ]


def snapshot_line(snapshot: Snapshot) -> str:
    """One line, for following."""
    serving, memory = snapshot.serving, snapshot.memory
    parts = [
        f"{serving.requests} requests, {serving.requests_in_flight} in flight",
        f"{serving.generated_tokens} tokens",
        f"{format_bytes(memory.available_bytes)} free",
    ]
    if memory.HasField("engine_bytes"):
        parts.insert(2, f"engine {format_bytes(memory.engine_bytes)}")
    if serving.time_per_output_token_seconds.count:
        parts.insert(2, f"TPOT {_milliseconds(serving.time_per_output_token_seconds.p50)}")
    rails = [rail for rail in snapshot.energy if rail.HasField("watts")]
    parts += [f"{rail.name} {rail.watts:.2f} W" for rail in rails] or ["no energy sensor"]
    return " · ".join(parts)


def recorded_line(sequence: int, snapshot: Snapshot) -> str:
    """One line of the board's record: its number and its time first."""
    when = datetime.fromtimestamp(snapshot.unix_seconds, tz=timezone.utc)
    return f"{sequence} {when:%Y-%m-%d %H:%M:%S}Z · {snapshot_line(snapshot)}"


def _serving(snapshot: Snapshot) -> Facts:
    serving = snapshot.serving
    counts = f"{serving.requests} accepted, {serving.requests_in_flight} in flight"
    return [
        ("requests", f"{counts}, {serving.requests_failed} failed, {serving.requests_rejected} rejected"),
        ("tokens", f"{serving.prompt_tokens} read, {serving.generated_tokens} generated"),
        *_latencies(serving),
    ]


def _latencies(source: Serving) -> Facts:
    names = {
        "TTFT": "time_to_first_token_seconds",
        "TPOT": "time_per_output_token_seconds",
        "ITL": "inter_token_latency_seconds",
    }
    found = {name: getattr(source, field) for name, field in names.items()}
    return [(name, _distribution(values)) for name, values in found.items() if values.count]


def _distribution(values: Distribution) -> str:
    named = {"p50": values.p50, "p90": values.p90, "p99": values.p99, "max": values.max}
    return ", ".join(f"{name} {_milliseconds(value)}" for name, value in named.items())


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _memory(snapshot: Snapshot) -> Facts:
    memory = snapshot.memory
    facts = [
        ("memory", f"{format_bytes(memory.available_bytes)} free of {format_bytes(memory.total_bytes)}"),
        ("budget", format_bytes(memory.budget_bytes)),
    ]
    if memory.HasField("engine_bytes"):
        peak = (
            f", peak {format_bytes(memory.engine_peak_bytes)}" if memory.HasField("engine_peak_bytes") else ""
        )
        measure = f" ({memory.engine_measure})" if memory.HasField("engine_measure") else ""
        facts.append(("engine memory", format_bytes(memory.engine_bytes) + peak + measure))
    return [*facts, ("agent memory", format_bytes(memory.agent_bytes))]


def _energy(snapshot: Snapshot) -> Facts:
    return [(f"energy {rail.name}", _rail(rail)) for rail in snapshot.energy] or [
        ("energy", "no energy sensor")
    ]


def _rail(rail: EnergyRail) -> str:
    watts = f", {rail.watts:.2f} W" if rail.HasField("watts") else ""
    scope = "whole module" if rail.whole_module else "part"
    return f"{rail.joules:.1f} J{watts} ({rail.source}, {scope}, {rail.samples} samples, {rail.gaps} gaps)"
