"""RAPL, the energy counters of x86 packages (powercap: `energy_uj` wraps at `max_energy_range_uj`)."""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.collectors.rails import Rail
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_int, read_text, why_unreadable

SOURCE = "rapl"


def discover(root: Path) -> tuple[Rail, ...]:
    """Returns packages, their parts (`package-0/core`) and psys, as far as they can be read. Raises NoDataError."""
    zones = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
    if not zones:
        raise NoDataError("no RAPL domain under /sys/class/powercap")
    rails = tuple(_rail(zone) for zone in zones if read_int(zone / "energy_uj") is not None)
    if not rails:
        raise NoDataError(f"RAPL is there but can't be read: {why_unreadable(zones[0] / 'energy_uj')}")
    return rails


def _rail(zone: Path) -> Rail:
    wraps_at = read_int(zone / "max_energy_range_uj")
    return Rail(
        name=_name(zone),
        source=SOURCE,
        read=lambda: _joules(zone / "energy_uj"),
        is_counter=True,
        wraps_at_joules=None if wraps_at is None else wraps_at / 1e6,
    )


def _name(zone: Path) -> str:
    """Returns the zone's own name; a part's after its package's, because every package has the same parts."""
    name = read_text(zone / "name") or zone.name
    parent, _, part = zone.name.rpartition(":")
    if parent == "intel-rapl" or not part:
        return name
    return f"{read_text(zone.parent / parent / 'name') or parent}/{name}"


def _joules(path: Path) -> float | None:
    microjoules = read_int(path)
    return None if microjoules is None else microjoules / 1e6
