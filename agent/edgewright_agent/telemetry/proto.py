"""Telemetry as the messages of `telemetry.proto`."""

from __future__ import annotations

from edgewright.v1 import inference_pb2, telemetry_pb2
from edgewright_agent.telemetry.types import (
    Distribution,
    EnergyRail,
    EnergyWindow,
    MemoryUsage,
    ServingSummary,
    Snapshot,
)


def snapshot_to_proto(snapshot: Snapshot, release: str | None = None) -> telemetry_pb2.Snapshot:
    """Returns the snapshot as a message. `release` is the digest in hex of what serves; None if nothing does."""
    message = telemetry_pb2.Snapshot(
        unix_seconds=snapshot.unix_seconds,
        monotonic_seconds=snapshot.monotonic_seconds,
        profile_id=snapshot.profile_id,
        active_release=bytes.fromhex(release or ""),
        serving=serving_to_proto(snapshot.serving),
        energy=[rail_to_proto(rail) for rail in snapshot.energy],
        temperatures=[
            telemetry_pb2.Temperature(zone=each.zone, celsius=each.celsius) for each in snapshot.temperatures
        ],
        power_mode=snapshot.power_mode,
        sensors=[
            telemetry_pb2.Sensor(name=each.name, available=each.available, detail=each.detail)
            for each in snapshot.sensors
        ],
        gpu_load_ratio=snapshot.gpu_load_ratio,
        clocks=[telemetry_pb2.Clock(unit=each.unit, hertz=each.hertz) for each in snapshot.clocks],
        throttling=[
            telemetry_pb2.Throttling(cause=each.cause, events=each.events) for each in snapshot.throttling
        ],
    )
    if snapshot.memory is not None:
        message.memory.CopyFrom(memory_to_proto(snapshot.memory))
    return message


def distribution_to_proto(distribution: Distribution) -> telemetry_pb2.Distribution:
    """Translates field for field."""
    return telemetry_pb2.Distribution(**vars(distribution))


def serving_to_proto(serving: ServingSummary) -> telemetry_pb2.Serving:
    """Translates field for field."""
    return telemetry_pb2.Serving(
        requests=serving.requests,
        requests_failed=serving.requests_failed,
        requests_rejected=serving.requests_rejected,
        requests_in_flight=serving.requests_in_flight,
        prompt_tokens=serving.prompt_tokens,
        generated_tokens=serving.generated_tokens,
        time_to_first_token_seconds=distribution_to_proto(serving.time_to_first_token_seconds),
        time_per_output_token_seconds=distribution_to_proto(serving.time_per_output_token_seconds),
        inter_token_latency_seconds=distribution_to_proto(serving.inter_token_latency_seconds),
    )


def memory_to_proto(memory: MemoryUsage) -> telemetry_pb2.Memory:
    """Translates the figures. Without an engine its three fields are absent; so is what the kernel does not tell."""
    engine, blocks, pressure = memory.engine, memory.free_blocks, memory.pressure
    return telemetry_pb2.Memory(
        total_bytes=memory.total_bytes,
        available_bytes=memory.available_bytes,
        swap_used_bytes=memory.swap_used_bytes,
        budget_bytes=memory.budget_bytes or 0,
        agent_bytes=memory.agent_bytes,
        used_peak_bytes=memory.used_peak_bytes,
        engine_bytes=engine.now_bytes if engine else None,
        engine_peak_bytes=engine.peak_bytes if engine else None,
        engine_measure=engine.measure if engine else None,
        nvmap_used_bytes=memory.nvmap_used_bytes,
        largest_free_blocks=blocks.count if blocks else None,
        largest_free_block_bytes=blocks.block_bytes if blocks else None,
        pressure=telemetry_pb2.MemoryPressure(**vars(pressure)) if pressure else None,
    )


def rail_to_proto(rail: EnergyRail) -> telemetry_pb2.EnergyRail:
    """Translates field for field."""
    return telemetry_pb2.EnergyRail(**vars(rail))


def energy_window_to_proto(window: EnergyWindow) -> inference_pb2.EnergyWindow:
    """Translates field for field."""
    return inference_pb2.EnergyWindow(**vars(window))
