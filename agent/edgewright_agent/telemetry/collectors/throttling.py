"""How often the board slowed itself down to protect itself.

Jetson (L4T 35 and newer): hwmon `soctherm_oc`, `ocN_event_cnt` since boot (NVIDIA's developer guide, "Platform Power
and Performance": OC1 is a low input voltage, OC2 an average, OC3 a momentary over-current). x86: `thermal_throttle`.
"""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.collectors.rails import hwmon_chips
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_int
from edgewright_agent.telemetry.types import Throttling

TEGRA = {1: "under_voltage", 2: "average_over_current", 3: "momentary_over_current"}
X86 = "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"


def read(root: Path) -> tuple[Throttling, ...]:
    """Returns the events since boot, by cause. Raises NoDataError."""
    found = tuple(
        Throttling(cause, count)
        for chip in hwmon_chips(root, "soctherm_oc")
        for number, cause in TEGRA.items()
        if (count := read_int(chip / f"oc{number}_event_cnt")) is not None
    )
    cores = [count for path in root.glob(X86) if (count := read_int(path)) is not None]
    if cores:
        found = (*found, Throttling("core_temperature", sum(cores)))
    if not found:
        raise NoDataError("neither soctherm_oc nor thermal_throttle counts events")
    return found
