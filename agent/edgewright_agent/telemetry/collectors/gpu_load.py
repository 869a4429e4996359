"""How busy the NVIDIA GPU is: an integrated one's `load` in thousandths, found by its devfreq or platform name.

Thor's driver has no such file (L4T 39.2: github.com/rbonghi/jetson_stats, issue 885); there, as on a PC, NVML tells.
"""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.collectors import nvml
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_int

# L4T 35 and older, 36 and newer; then the name that has stayed the same.
PATTERNS = (
    "sys/class/devfreq/*.ga10b/device/load",
    "sys/class/devfreq/*.gv11b/device/load",
    "sys/class/devfreq/*gpu*/device/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/gpu.0/load",
)


def read(root: Path) -> float:
    """Returns the share of time the GPU was busy, 0 to 1. Raises NoDataError."""
    for pattern in PATTERNS:
        for path in sorted(root.glob(pattern)):
            load = read_int(path)
            if load is not None:
                return min(1.0, load / 1000)
    try:
        return nvml.load(root)
    except NoDataError as absent:
        raise NoDataError(f"no devfreq GPU with a load; {absent}") from None
