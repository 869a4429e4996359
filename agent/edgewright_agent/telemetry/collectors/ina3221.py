"""INA3221, the three-channel power monitor of the Jetson modules.

Two drivers: hwmon (`inN_label`, `inN_input` in mV, `currN_input` in mA; kernel documentation
hwmon/ina3221.rst) and, up to L4T 32, NVIDIA's iio driver (`rail_name_N`, `in_powerN_input` in mW).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgewright_agent.telemetry.collectors.rails import Rail, Read, hwmon_chips
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_int, read_text

SOURCE = "ina3221"
CHANNELS = (1, 2, 3)  # inN above 3 are shunt voltages, and their sum where summing is on: not rails


def discover(root: Path) -> tuple[Rail, ...]:
    """Returns every labelled channel of every chip, in the chips' order. Raises NoDataError."""
    rails = (*_hwmon(root), *_iio(root))
    if not rails:
        raise NoDataError("no INA3221 with a labelled rail under /sys/class/hwmon or /sys/bus/i2c")
    return rails


def _hwmon(root: Path) -> Iterator[Rail]:
    for chip in hwmon_chips(root, "ina3221"):
        for channel in CHANNELS:
            label = read_text(chip / f"in{channel}_label")
            is_off = read_int(chip / f"in{channel}_enable") == 0  # the driver then answers ENODATA
            if _is_rail(label) and not is_off and (chip / f"curr{channel}_input").exists():
                yield Rail(str(label), SOURCE, _product(chip, channel))


def _iio(root: Path) -> Iterator[Rail]:
    for chip in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
        for channel in range(len(CHANNELS)):
            label = read_text(chip / f"rail_name_{channel}")
            if _is_rail(label):
                yield Rail(str(label), SOURCE, _milliwatts(chip / f"in_power{channel}_input"))


def _is_rail(label: str | None) -> bool:
    return bool(label) and label != "NC" and "sum of shunt" not in str(label)


def _product(chip: Path, channel: int) -> Read:
    voltage, current = chip / f"in{channel}_input", chip / f"curr{channel}_input"

    def watts() -> float | None:
        millivolts, milliamperes = read_int(voltage), read_int(current)
        if millivolts is None or milliamperes is None:
            return None
        return millivolts * milliamperes / 1e6

    return watts


def _milliwatts(path: Path) -> Read:
    def watts() -> float | None:
        milliwatts = read_int(path)
        return None if milliwatts is None else milliwatts / 1e3

    return watts
