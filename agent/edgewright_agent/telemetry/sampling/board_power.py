"""Meters all rails of the board, and chooses the one that speaks for the whole module. Where none answers: None."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from edgewright_agent.telemetry.collectors.rails import Rail
from edgewright_agent.telemetry.joule_counter import GAP_SECONDS, Meter, Point
from edgewright_agent.telemetry.types import EnergyMark, EnergyRail, EnergyWindow, SensorStatus

# Where no rail is the whole module: the platform, then CPU packages, then GPUs, then whatever there is.
BEST_OF_PARTS: tuple[Callable[[Rail], bool], ...] = (
    lambda rail: rail.name == "psys",
    lambda rail: rail.source == "rapl" and rail.name.startswith("package") and "/" not in rail.name,
    lambda rail: rail.source == "nvml",
    lambda rail: True,
)


@dataclass(frozen=True)
class _Metered:
    rail: Rail
    meter: Meter
    whole_module: bool
    parts: tuple[str, ...] = ()  # of a sum: the names of the rails it adds up


class PowerMeter:
    """Reads every rail once per sample and keeps their joules."""

    def __init__(
        self, rails: Sequence[Rail], whole_module_rails: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._wanted = tuple(whole_module_rails)
        self._rails: tuple[_Metered, ...] = ()
        self._sum: _Metered | None = None
        self._best: _Metered | None = None
        self.take_up(rails)

    def take_up(self, rails: Sequence[Rail]) -> None:
        """Takes the rails as they are found now. Each keeps its meter; one that is not found is silent.

        A driver that was loaded again has other files, and what was its file may be another rail's.
        """
        known = {
            _key(each.rail): replace(each, rail=replace(each.rail, read=_silence)) for each in self._rails
        }
        for rail in rails:
            meter = known[_key(rail)].meter if _key(rail) in known else Meter(rail.wraps_at_joules)
            known[_key(rail)] = _Metered(rail, meter, whole_module=self._wanted == (rail.name,))
        self._rails = tuple(known.values())
        if self._sum is None and len(self._wanted) > 1:
            self._sum = _sum_of([each.rail for each in self._rails], self._wanted)
        self._best = self._sum or _best(self._rails)

    def sample(self) -> None:
        """Takes one sample of every rail; each is stamped when it was read."""
        watts: dict[str, float | None] = {}
        for metered in self._rails:
            value = metered.rail.read()
            if metered.rail.is_counter:
                metered.meter.add_counter(self._clock(), value)
            else:
                metered.meter.add_watts(self._clock(), value)
                watts[metered.rail.name] = value
        if self._sum is not None:
            parts = [watts.get(name) for name in self._sum.parts]
            known = [part for part in parts if part is not None]
            total = sum(known) if len(known) == len(parts) else None
            self._sum.meter.add_watts(self._clock(), total)

    def rails(self) -> tuple[EnergyRail, ...]:
        """Returns the counters of all rails; the sum that is the whole module, if it is one, comes first."""
        return tuple(self._energy(each) for each in self._all())

    def points(self) -> dict[str, tuple[Point, ...]]:
        """Returns the counter of each rail after each of its samples."""
        return {each.rail.name: each.meter.points for each in self._all()}

    def answering(self) -> tuple[EnergyRail, ...]:
        """Returns those of `rails` that have answered within the last second: of the others nothing is known now."""
        return tuple(self._energy(each) for each in self._all() if self._answers(each))

    def sensors(self, found: Iterable[SensorStatus]) -> tuple[SensorStatus, ...]:
        """Returns what the search for each source said, and of those found, which rails do not answer."""
        return tuple(self._heard(sensor) for sensor in found)

    def best(self) -> EnergyRail | None:
        """Returns the rail that speaks for the board, or for as much of it as is measured; None without sensors."""
        best = self._best
        return None if best is None else self._energy(best)

    def mark(self) -> EnergyMark | None:
        """Returns the best rail as of its last sample; None if it has none."""
        best = self._best
        if best is None or best.meter.last_seconds is None:
            return None
        return EnergyMark(best.meter.last_seconds, self._energy(best))

    def window(
        self, admitted_seconds: float, first_token_seconds: float, last_token_seconds: float
    ) -> EnergyWindow | None:
        """Returns a request's energy on the best rail; None without sensors, or where they had a gap."""
        best = self._best
        if best is None:
            return None
        prefill_joules = best.meter.joules_between(admitted_seconds, first_token_seconds)
        decode_joules = best.meter.joules_between(first_token_seconds, last_token_seconds)
        if prefill_joules is None or decode_joules is None:
            return None
        return EnergyWindow(best.rail.name, prefill_joules, decode_joules)

    def _all(self) -> tuple[_Metered, ...]:
        return self._rails if self._sum is None else (self._sum, *self._rails)

    def _answers(self, metered: _Metered) -> bool:
        last = metered.meter.last_seconds
        return last is not None and self._clock() - last <= GAP_SECONDS

    def _heard(self, sensor: SensorStatus) -> SensorStatus:
        silent = [
            each.rail.name
            for each in self._rails
            if each.rail.source == sensor.name and not self._answers(each)
        ]
        if not sensor.available or not silent:
            return sensor
        return SensorStatus(sensor.name, False, f"no answer from {', '.join(silent)}")

    def _energy(self, metered: _Metered) -> EnergyRail:
        meter = metered.meter
        return EnergyRail(
            name=metered.rail.name,
            source=metered.rail.source,
            whole_module=metered.whole_module,
            joules=meter.joules,
            watts=meter.watts(self._clock()),
            samples=meter.samples,
            gaps=meter.gaps,
        )


def _key(rail: Rail) -> tuple[str, str]:
    return rail.source, rail.name


def _silence() -> None:
    """Reads a rail that is not there now."""


def _sum_of(rails: Sequence[Rail], names: tuple[str, ...]) -> _Metered | None:
    """Returns a metered sum of power rails; None unless all of them are there."""
    parts = {rail.name: rail for rail in rails if not rail.is_counter}
    if not all(name in parts for name in names):
        return None
    source = parts[names[0]].source
    return _Metered(Rail("+".join(names), source, _silence), Meter(), whole_module=True, parts=names)


def _best(rails: Sequence[_Metered]) -> _Metered | None:
    whole = next((metered for metered in rails if metered.whole_module), None)
    if whole is not None:
        return whole
    ranked = (metered for rule in BEST_OF_PARTS for metered in rails if rule(metered.rail))
    return next(ranked, None)
