"""How busy an integrated NVIDIA GPU is: its `load` in thousandths, found by its devfreq or platform name."""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.sysfs import NoDataError, read_int

# L4T 35 and older, 36 and newer, Thor; then the name that has stayed the same.
PATTERNS = (
    "sys/class/devfreq/*.ga10b/device/load",
    "sys/class/devfreq/*.gv11b/device/load",
    "sys/class/devfreq/*gpu*/device/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/gpu.0/load",
)


def read(root: Path) -> float:
    """Share of time the GPU was busy, 0 to 1. Raises NoDataError."""
    for pattern in PATTERNS:
        for path in sorted(root.glob(pattern)):
            load = read_int(path)
            if load is not None:
                return min(1.0, load / 1000)
    raise NoDataError("no devfreq GPU with a load")
