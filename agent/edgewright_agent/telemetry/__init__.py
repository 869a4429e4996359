"""What serving costs on this board: latency, memory, energy, temperature, clocks."""

from __future__ import annotations

from edgewright_agent.telemetry.serving import RequestWindow
from edgewright_agent.telemetry.types import (
    EnergyRail,
    EnergyWindow,
    MemoryUsage,
    Operation,
    RequestSummary,
    SensorStatus,
    ServedBy,
    ServingSummary,
    Snapshot,
)

__all__ = [
    "EnergyRail",
    "EnergyWindow",
    "MemoryUsage",
    "Operation",
    "RequestSummary",
    "RequestWindow",
    "SensorStatus",
    "ServedBy",
    "ServingSummary",
    "Snapshot",
]
