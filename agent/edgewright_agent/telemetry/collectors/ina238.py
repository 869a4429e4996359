"""INA238, the input power monitor of AGX Thor (hwmon driver ina238: `power1_input` in µW)."""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.collectors.rails import Rail, hwmon_chips
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_int, read_text

SOURCE = "ina238"


def discover(root: Path) -> tuple[Rail, ...]:
    """Returns one rail for each chip; without a label it is called VIN, the input it sits on. Raises NoDataError."""
    rails = tuple(_rail(chip) for chip in hwmon_chips(root, "ina238") if (chip / "power1_input").exists())
    if not rails:
        raise NoDataError("no INA238 under /sys/class/hwmon")
    return rails


def _rail(chip: Path) -> Rail:
    def watts() -> float | None:
        microwatts = read_int(chip / "power1_input")
        return None if microwatts is None else microwatts / 1e6

    label = read_text(chip / "power1_label") or read_text(chip / "in1_label") or "VIN"
    return Rail(label, SOURCE, watts)
