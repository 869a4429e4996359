"""The meter is compared with what was set over the intervals that it counted; only its slopes may differ."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from virtual_board.sensors.comparison import Change, Comparison, Sampled, compare

from edgewright_agent.telemetry.joule_counter import Meter


def steps(chance: random.Random, seconds: float) -> list[Change]:
    """Powers that change every two seconds, one step below nothing now and then."""
    levels = [chance.choice([-0.04, 2.0, 5.0, 8.5]) for _ in range(int(seconds / 2))]
    return [Change(2.0 * number, 2.0 * number + 0.01, watts) for number, watts in enumerate(levels)]


def watts_at(changes: list[Change], seconds: float) -> float:
    return [change.watts for change in changes if change.done_seconds <= seconds][-1]


def metered(
    changes: list[Change], chance: random.Random, seconds: float, answers: Callable[[float], bool]
) -> list[Sampled]:
    meter, now = Meter(), 0.02
    while now < seconds:
        meter.add_watts(now, watts_at(changes, now) if answers(now) else None)
        now += chance.uniform(0.05, 0.3)  # late samples of a busy board
    return [Sampled(point.seconds, point.joules, point.gaps) for point in meter.points]


@pytest.mark.parametrize("seed", range(20))
def test_late_samples_and_gaps_differ_by_no_more_than_the_slopes(seed: int) -> None:
    chance = random.Random(seed)
    changes = steps(chance, 200)
    samples = metered(changes, chance, 200, lambda now: not 50 < now < 53.7)
    result = compare(changes, samples)
    assert abs(result.counted_joules - result.set_joules) <= result.bound_joules
    assert abs(result.error) < 0.02
    assert result.gaps == 1
    assert result.longest_seconds < 1


def test_what_was_set_in_a_gap_is_expected_of_no_meter() -> None:
    changes = [Change(0.0, 0.0, 5.0)]
    samples = metered(changes, random.Random(1), 60, lambda now: not 20 < now < 25)
    result = compare(changes, samples)
    assert result.counted_joules == pytest.approx(result.set_joules)
    assert result.set_joules < 5.0 * 56
    assert result.bound_joules == 0


def test_a_meter_that_counts_its_gaps_is_seen() -> None:
    def counted(joules: float) -> Comparison:
        samples = [Sampled(float(second), 5.0 * second, 0) for second in range(40)]
        return compare([Change(0.0, 0.0, 5.0)], [*samples, Sampled(40.0, samples[-1].joules + joules, 0)])

    assert abs(counted(5.0).error) < 1e-9
    assert counted(15.0).error > 0.01
