"""All rails of the board, metered; and which of them speaks for the whole module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewright_agent.telemetry.energy import Meter
from edgewright_agent.telemetry.rails import Rail
from edgewright_agent.telemetry.types import EnergyMark, EnergyRail, EnergyWindow

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


class PowerMeter:
    """Reads every rail once per sample and keeps their joules."""

    def __init__(
        self, rails: Sequence[Rail], whole_module_rails: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        wanted = tuple(whole_module_rails)
        alone = wanted[0] if len(wanted) == 1 else None
        self._rails = [_Metered(rail, Meter(rail.wraps_at_joules), rail.name == alone) for rail in rails]
        self._sum = _sum_of(rails, wanted) if len(wanted) > 1 else None
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
            parts = [watts.get(name) for name in self._sum.rail.name.split("+")]
            known = [part for part in parts if part is not None]
            total = sum(known) if len(known) == len(parts) else None
            self._sum.meter.add_watts(self._clock(), total)

    def rails(self) -> tuple[EnergyRail, ...]:
        """Counters of all rails; the sum that is the whole module, if it is one, comes first."""
        metered = self._rails if self._sum is None else [self._sum, *self._rails]
        return tuple(self._energy(each) for each in metered)

    def best(self) -> EnergyRail | None:
        """The rail that speaks for the board, or for as much of it as is measured; None without sensors."""
        return None if self._best is None else self._energy(self._best)

    def mark(self) -> EnergyMark | None:
        """The best rail as of its last sample; None if it has none."""
        if self._best is None or self._best.meter.last_seconds is None:
            return None
        return EnergyMark(self._best.meter.last_seconds, self._energy(self._best))

    def window(self, admitted: float, first_token: float, last_token: float) -> EnergyWindow | None:
        """Energy of a request on the best rail; None without sensors, or where they had a gap."""
        if self._best is None:
            return None
        prefill = self._best.meter.between(admitted, first_token)
        decode = self._best.meter.between(first_token, last_token)
        if prefill is None or decode is None:
            return None
        return EnergyWindow(self._best.rail.name, prefill, decode)

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


def _sum_of(rails: Sequence[Rail], names: tuple[str, ...]) -> _Metered | None:
    """A metered sum of power rails; None unless all of them are there."""
    parts = {rail.name: rail for rail in rails if not rail.is_counter}
    if not all(name in parts for name in names):
        return None
    source = parts[names[0]].source
    return _Metered(Rail("+".join(names), source, lambda: None), Meter(), whole_module=True)


def _best(rails: Sequence[_Metered]) -> _Metered | None:
    whole = next((metered for metered in rails if metered.whole_module), None)
    if whole is not None:
        return whole
    ranked = (metered for rule in BEST_OF_PARTS for metered in rails if rule(metered.rail))
    return next(ranked, None)
