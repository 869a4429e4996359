"""Power monitors of one supply: the INA238 of AGX Thor, and the INA219, INA226 and their like of carrier boards.

The kernel's drivers ina238 and ina2xx give `power1_input` in µW (kernel documentation, hwmon/ina2xx.rst). A label comes
from the device tree's `label`, as the file of that name.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgewright_agent.telemetry.collectors.rails import Rail, hwmon_chips
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_int, read_text

INA238 = ("ina237", "ina238")
INA2XX = ("ina219", "ina220", "ina226", "ina230", "ina231")
VIN = "VIN"  # the input that Thor's INA238 sits on, which its device tree does not name


def discover_ina238(root: Path) -> tuple[Rail, ...]:
    """Returns one rail for each INA238; without a label it is called VIN. Raises NoDataError."""
    return _discover(root, "ina238", INA238)


def discover_ina2xx(root: Path) -> tuple[Rail, ...]:
    """Returns one rail for each INA219, INA226 or the like; without a label it has its chip's name.

    Raises NoDataError.
    """
    return _discover(root, "ina2xx", INA2XX)


def _discover(root: Path, source: str, names: tuple[str, ...]) -> tuple[Rail, ...]:
    rails = tuple(
        Rail(_label(chip) or (VIN if names is INA238 else name), source, partial(_watts, chip))
        for name in names
        for chip in hwmon_chips(root, name)
        if (chip / "power1_input").exists()
    )
    if not rails:
        raise NoDataError(f"no {names[-1].upper()} or the like under /sys/class/hwmon")
    return rails


def _label(chip: Path) -> str | None:
    return next(
        (text for name in ("label", "power1_label", "in1_label") if (text := read_text(chip / name))), None
    )


def _watts(chip: Path) -> float | None:
    microwatts = read_int(chip / "power1_input")
    return None if microwatts is None else microwatts / 1e6
