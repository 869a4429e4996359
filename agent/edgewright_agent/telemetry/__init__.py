"""What serving costs on this board: latency, memory, energy, temperature, clocks."""

from __future__ import annotations

from edgewright_agent.telemetry.monitor import Telemetry
from edgewright_agent.telemetry.serving import RequestWindow
from edgewright_agent.telemetry.types import (
    EnergyRail,
    EnergyWindow,
    Memory,
    Operation,
    RequestSummary,
    Sensor,
    ServedBy,
    Serving,
    Snapshot,
)

__all__ = [
    "EnergyRail",
    "EnergyWindow",
    "Memory",
    "Operation",
    "RequestSummary",
    "RequestWindow",
    "Sensor",
    "ServedBy",
    "Serving",
    "Snapshot",
    "Telemetry",
]
