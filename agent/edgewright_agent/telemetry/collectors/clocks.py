"""Clocks: CPUs by cpufreq (kHz), GPU and memory by devfreq (Hz); a Tegra's memory by BPMP's debugfs, for root.

Thor's GPU has two devfreq nodes, `gpu-gpc-0` that computes and `gpu-nvd-0` for video, and its memory's is `bwmgr`
(github.com/rbonghi/jetson_stats, issue 885 and pull request 825). Engines for video are no clock of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import NoDataError, distinct, read_int
from edgewright_agent.telemetry.types import Clock

DEVFREQ_UNITS = (
    ("gpu", re.compile(r"gpu(?!-nvd)|ga10b|gv11b|gp10b|gm20b")),
    ("emc", re.compile(r"emc|^bwmgr$")),
)

EMC_RATE = "sys/kernel/debug/bpmp/debug/clk/emc/rate"


def read(root: Path) -> tuple[Clock, ...]:
    """Returns every clock that answers. Raises NoDataError."""
    clocks = (*_cpus(root), *_devfreq(root))
    if all(clock.unit != "emc" for clock in clocks) and (hertz := read_int(root / EMC_RATE)) is not None:
        clocks = (*clocks, Clock("emc", hertz))
    if not clocks:
        raise NoDataError("neither cpufreq nor devfreq tells a clock")
    return clocks


def _cpus(root: Path) -> Iterator[Clock]:
    folders = root.glob("sys/devices/system/cpu/cpu[0-9]*")
    for folder in sorted(folders, key=lambda path: (len(path.name), path.name)):
        kilohertz = read_int(folder / "cpufreq/scaling_cur_freq")
        if kilohertz is not None:
            yield Clock(folder.name, kilohertz * 1000)


def _devfreq(root: Path) -> Iterator[Clock]:
    folders = [(_unit(folder.name), folder) for folder in sorted(root.glob("sys/class/devfreq/*"))]
    known = [(unit, folder) for unit, folder in folders if unit is not None]
    for name, (_, folder) in zip(distinct(unit for unit, _ in known), known, strict=True):
        hertz = read_int(folder / "cur_freq")
        if hertz is not None:
            yield Clock(name, hertz)


def _unit(device: str) -> str | None:
    return next((unit for unit, pattern in DEVFREQ_UNITS if pattern.search(device)), None)
