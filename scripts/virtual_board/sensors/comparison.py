"""Compares the joules that a meter counted with those of the powers that were set, over the meter's own intervals.

A meter knows nothing of the time before its first sample, after its last one, and in its gaps. So the powers that were
set are integrated over exactly the stretches between two samples that the meter counted. What may differ then is the
trapezoid rule alone: it draws a step as a slope, from the sample before to the one after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Change:
    """A power that was set: between which moments its register was written, and what it says since."""

    begun_seconds: float
    done_seconds: float
    watts: float

    @property
    def seconds(self) -> float:
        """When it counts from."""
        return (self.begun_seconds + self.done_seconds) / 2


@dataclass(frozen=True)
class Sampled:
    """A meter's counter after a sample."""

    seconds: float
    joules: float
    gaps: int


@dataclass(frozen=True)
class Comparison:
    """The joules of one rail."""

    set_joules: float
    counted_joules: float
    bound_joules: float  # what slopes in the place of steps may differ at most
    gaps: int
    samples: int
    longest_seconds: float  # between two samples that were counted

    @property
    def error(self) -> float:
        """By what share the counted joules differ from those set."""
        return self.counted_joules / self.set_joules - 1


def compare(changes: Sequence[Change], samples: Sequence[Sampled]) -> Comparison:
    """Returns both integrals over the intervals that the meter counted since the first change."""
    known = [sample for sample in samples if sample.seconds >= changes[0].done_seconds]
    counted = [(start, end) for start, end in pairwise(known) if start.gaps == end.gaps]
    return Comparison(
        set_joules=sum(_joules(changes, start.seconds, end.seconds) for start, end in counted),
        counted_joules=sum(end.joules - start.joules for start, end in counted),
        bound_joules=sum(_bound(changes, start.seconds, end.seconds) for start, end in counted),
        gaps=known[-1].gaps - known[0].gaps,
        samples=len(known),
        longest_seconds=max(end.seconds - start.seconds for start, end in counted),
    )


def _joules(changes: Sequence[Change], start: float, end: float) -> float:
    """Returns the energy set between two moments; a power below nothing gives none."""
    return sum(
        max(0.0, watts) * (min(end, until) - max(start, since))
        for since, until, watts in _levels(changes)
        if since < end and until > start
    )


def _bound(changes: Sequence[Change], start: float, end: float) -> float:
    """Returns half of the interval times the steps in it, and each step times as long as its writing took."""
    inside = [
        (max(0.0, after.watts) - max(0.0, before.watts), after)
        for before, after in pairwise(changes)
        if start < after.done_seconds and after.begun_seconds < end
    ]
    return sum(
        abs(step) * ((end - start) / 2 + change.done_seconds - change.begun_seconds)
        for step, change in inside
    )


def _levels(changes: Sequence[Change]) -> Iterator[tuple[float, float, float]]:
    """Yields since when, until when, and the watts."""
    for change, following in pairwise(changes):
        yield change.seconds, following.seconds, change.watts
    yield changes[-1].seconds, float("inf"), changes[-1].watts
