"""Energy from samples: one meter per rail, a joule counter that only rises.

Power rails are integrated by the trapezoid rule, E += (P0 + P1) / 2 · (t1 - t0); counters (RAPL, NVML) by
differences modulo their range. A sensor may read a little below nothing, as an INA3221 does by a step of 8 mA: that is
shown as it was read, and adds no energy. A stretch of more than a second without a sample is a gap: it is counted
as one, and its energy is not. So is a counter's reset: what came before it is unknown.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

GAP_SECONDS = 1.0
STEP_JOULES_MAX = 10_000.0  # of a counter between two samples without a gap: no board takes 10 kW
HISTORY_SECONDS = 1200.0  # how far back a request's window may begin


@dataclass(frozen=True)
class Point:
    """The counter at a moment."""

    seconds: float
    joules: float
    gaps: int
    signed_joules: float  # negative power subtracted: what mean power follows from


class Meter:
    """The joule counter of one rail. Fed by one thread, read by any."""

    def __init__(self, wraps_at_joules: float | None = None) -> None:
        self._wraps_at_joules = wraps_at_joules
        self._last: tuple[float, float] | None = None  # time, watts or counter
        self._history: list[Point] = []  # appended to or replaced, never shortened: readers need no lock
        self.joules = 0.0
        self._signed_joules = 0.0
        self.samples = 0
        self.gaps = 0

    def add_watts(self, seconds: float, watts: float | None) -> None:
        """Adds a power sample of that moment; None if the sensor did not answer."""
        self._add(seconds, watts, is_counter=False)

    def add_counter(self, seconds: float, joules: float | None) -> None:
        """Adds a reading of an energy counter at that moment; None if the sensor did not answer."""
        self._add(seconds, joules, is_counter=True)

    @property
    def points(self) -> tuple[Point, ...]:
        """Returns the counter after each sample of the last 20 minutes at least: what it integrated over."""
        return tuple(self._history)

    @property
    def last_seconds(self) -> float | None:
        """Returns when the last sample was taken; None before the first."""
        return None if self._last is None else self._last[0]

    def watts(self, now: float) -> float | None:
        """Returns the mean power over the last second of samples, below 0 too; None before there are two, or in or
        across a gap.
        """
        history = self._history
        if len(history) < 2 or now - history[-1].seconds > GAP_SECONDS:
            return None
        last = history[-1]
        start = bisect_right(history, last.seconds - 1.0 - 1e-9, key=_seconds)
        first = history[min(start, len(history) - 2)]
        if first.gaps != last.gaps:
            return None
        return (last.signed_joules - first.signed_joules) / (last.seconds - first.seconds)

    def joules_between(self, start_seconds: float, end_seconds: float) -> float | None:
        """Returns the joules between two moments, both interpolated; None outside the history or across a gap.

        The end may lie up to a second after the last sample: power is then taken to have stayed as it was.
        """
        history = self._history
        first, last = _at(history, start_seconds), _at(history, end_seconds)
        if first is None or last is None or first.gaps != last.gaps:
            return None
        return max(0.0, last.joules - first.joules)

    def _add(self, seconds: float, value: float | None, *, is_counter: bool) -> None:
        if value is None:
            return
        if self._last is not None:
            before, previous = self._last
            elapsed = seconds - before
            if elapsed <= 0:
                return
            step = self._counter_step(previous, value) if is_counter else (previous + value) / 2 * elapsed
            if elapsed > GAP_SECONDS or step is None:
                self.gaps += 1
            else:
                self._signed_joules += step
                self.joules += step if is_counter else (max(0.0, previous) + max(0.0, value)) / 2 * elapsed
        self._last = (seconds, value)
        self.samples += 1
        self._history.append(Point(seconds, self.joules, self.gaps, self._signed_joules))
        if self._history[0].seconds < seconds - 2 * HISTORY_SECONDS:
            keep = bisect_right(self._history, seconds - HISTORY_SECONDS, key=_seconds)
            self._history = self._history[keep:]

    def _counter_step(self, before: float, now: float) -> float | None:
        """Returns the joules from one reading to the next; None if the counter was reset in between."""
        step = now - before
        if step < 0:
            step += self._wraps_at_joules or 0.0
        return step if 0 <= step <= STEP_JOULES_MAX else None


def _seconds(point: Point) -> float:
    return point.seconds


def _at(history: list[Point], seconds: float) -> Point | None:
    """Returns the counter at `seconds`, by linear interpolation; None outside the history or inside a gap."""
    if len(history) < 2 or not history[0].seconds <= seconds <= history[-1].seconds + GAP_SECONDS:
        return None
    after = min(bisect_right(history, seconds, key=_seconds), len(history) - 1)
    left, right = history[after - 1], history[after]
    if left.seconds == seconds:
        return left  # also where a gap begins there
    if left.gaps != right.gaps:
        return None
    share = (seconds - left.seconds) / (right.seconds - left.seconds)
    return Point(
        seconds,
        left.joules + share * (right.joules - left.joules),
        left.gaps,
        left.signed_joules + share * (right.signed_joules - left.signed_joules),
    )
