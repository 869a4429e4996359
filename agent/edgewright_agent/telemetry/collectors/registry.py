"""Every collector, by name. To add one, write its file and add a line here.

A collector takes the root of `/sys` and `/proc` and raises NoDataError where its hardware is absent. An OSError, as
when the agent has no file handle left, says the same of this moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewright_agent.telemetry.collectors import (
    clocks,
    free_blocks,
    gpu_load,
    ina2xx,
    ina3221,
    memory,
    nvml,
    nvpmodel,
    pressure,
    rapl,
    thermal,
    throttling,
)
from edgewright_agent.telemetry.collectors.rails import Rail
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, distinct
from edgewright_agent.telemetry.types import SensorStatus

ENERGY_SOURCES: dict[str, Callable[[Path], tuple[Rail, ...]]] = {
    "ina3221": ina3221.discover,
    "ina238": ina2xx.discover_ina238,
    "ina2xx": ina2xx.discover_ina2xx,
    "rapl": rapl.discover,
    "nvml": nvml.discover,
}

GAUGES: dict[str, Callable[[Path], Any]] = {
    "memory": memory.read,
    "memory_pressure": pressure.read,
    "free_blocks": free_blocks.read,
    "thermal": thermal.read,
    "gpu_load": gpu_load.read,
    "clocks": clocks.read,
    "power_mode": nvpmodel.read,
    "throttling": throttling.read,
}


def discover_rails(root: Path) -> tuple[tuple[Rail, ...], tuple[SensorStatus, ...]]:
    """Returns all rails of all energy sources, each with a name of its own, and what each source said."""
    rails: list[Rail] = []
    absent: dict[str, str] = {}
    for source, discover in ENERGY_SOURCES.items():
        try:
            rails.extend(discover(root))
        except (NoDataError, OSError) as why:
            absent[source] = str(why)
    names = distinct(rail.name for rail in rails)
    named = tuple(replace(rail, name=name) for rail, name in zip(rails, names, strict=True))
    return named, tuple(
        SensorStatus(
            source,
            source not in absent,
            absent.get(source) or ", ".join(rail.name for rail in named if rail.source == source),
        )
        for source in ENERGY_SOURCES
    )


def asked(rails: Iterable[Rail], sources: Iterable[SensorStatus]) -> tuple[SensorStatus, ...]:
    """Reads every rail once; returns what each source said. One that is found and gives no value does not answer."""
    silent: dict[str, list[str]] = {}
    for rail in rails:
        if rail.read() is None:
            silent.setdefault(rail.source, []).append(rail.name)
    return tuple(
        SensorStatus(each.name, False, f"no answer from {', '.join(silent[each.name])}")
        if each.available and each.name in silent
        else each
        for each in sources
    )


def read_gauges(root: Path) -> tuple[dict[str, Any], tuple[SensorStatus, ...]]:
    """Returns the values of the gauges that have one, and what each gauge said."""
    values: dict[str, Any] = {}
    sensors: list[SensorStatus] = []
    for name, read in GAUGES.items():
        try:
            values[name] = read(root)
            sensors.append(SensorStatus(name, True))
        except (NoDataError, OSError) as absent:
            sensors.append(SensorStatus(name, False, str(absent)))
    return values, tuple(sensors)
