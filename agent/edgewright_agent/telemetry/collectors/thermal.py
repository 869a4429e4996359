"""Temperatures, from `/sys/class/thermal` (millidegrees)."""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import NoDataError, distinct, read_int, read_text
from edgewright_agent.telemetry.types import Temperature

ASLEEP_MILLIDEGREES = -100_000  # a Tegra gives -256 °C for a part that is powered off


def read(root: Path) -> tuple[Temperature, ...]:
    """Returns every zone that answers. Raises NoDataError."""
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"), key=lambda path: (len(path.name), path.name))
    names = distinct(read_text(zone / "type") or zone.name for zone in zones)
    readings = ((name, read_int(zone / "temp")) for name, zone in zip(names, zones, strict=True))
    temperatures = tuple(
        Temperature(name, value / 1e3)
        for name, value in readings
        if value is not None and value > ASLEEP_MILLIDEGREES
    )
    if not temperatures:
        raise NoDataError("no thermal zone under /sys/class/thermal answers")
    return temperatures
