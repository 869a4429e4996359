from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_agent.telemetry.collectors.rails import Rail
from edgewright_agent.telemetry.joule_counter import GAP_SECONDS, HISTORY_SECONDS, Meter
from edgewright_agent.telemetry.sampling.board_power import PowerMeter

steps = st.lists(st.floats(0.001, 0.99 * GAP_SECONDS), min_size=2, max_size=60)


@settings(deadline=None)
@given(steps, st.floats(0, 100), st.floats(0, 10))
def test_linear_power_integrates_to_the_analytic_energy(
    seconds: list[float], watts: float, slope: float
) -> None:
    meter = Meter()
    times = list(itertools.accumulate(seconds))
    for time in times:
        meter.add_watts(time, watts + slope * time)
    start, end = times[0], times[-1]
    assert meter.joules == pytest.approx(watts * (end - start) + slope * (end**2 - start**2) / 2, abs=1e-6)
    assert (meter.samples, meter.gaps) == (len(times), 0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 50), min_size=2, max_size=50), st.floats(0, 99))
def test_a_wrapping_counter_gives_the_sum_of_its_increments(increments: list[float], start: float) -> None:
    wraps_at, total = 100.0, start
    meter = Meter(wraps_at)
    meter.add_counter(0.0, start)
    for number, increment in enumerate(increments, 1):
        total += increment
        meter.add_counter(number * 0.1, total % wraps_at)
    assert meter.joules == pytest.approx(sum(increments), abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.one_of(st.none(), st.floats(-50, 1000))), max_size=60))
def test_joules_never_fall_whatever_the_sensor_says(samples: list[tuple[float, float | None]]) -> None:
    power, counter, now = Meter(), Meter(), 0.0
    for step, value in samples:
        now += step
        before = (power.joules, counter.joules)
        power.add_watts(now, value)
        counter.add_counter(now, value)
        assert power.joules >= before[0]
        assert counter.joules >= before[1]


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=30))
def test_negative_power_is_shown_as_read_and_adds_no_energy(readings: list[float]) -> None:
    meter, apart = Meter(), Meter()
    for number, watts in enumerate(readings):
        meter.add_watts(number * 0.1, watts)
        apart.add_watts(number * 0.1, max(0.0, watts))
    assert meter.joules == pytest.approx(apart.joules)
    now = (len(readings) - 1) * 0.1
    window = readings[-11:]
    mean = sum((a + b) / 2 for a, b in itertools.pairwise(window)) / (len(window) - 1)
    assert meter.watts(now) == pytest.approx(mean, abs=1e-9)
    between = meter.joules_between(0.0, now)
    assert between == pytest.approx(meter.joules)


def test_a_rail_that_rests_one_step_below_nothing_stands_still_in_joules_and_shows_its_watts() -> None:
    meter = Meter()
    for number in range(20):
        meter.add_watts(number * 0.1, 5.048 * -0.008)
    assert meter.joules == 0
    assert meter.watts(1.9) == pytest.approx(-0.040384)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 2.5), st.one_of(st.none(), st.floats(0, 100))), min_size=2, max_size=80
    )
)
def test_random_power_with_gaps_is_the_sum_of_its_trapezoids_without_them(
    samples: list[tuple[float, float | None]],
) -> None:
    meter, now = Meter(), 0.0
    answered: list[tuple[float, float]] = []
    for step, watts in samples:
        now += step
        before = meter.joules
        meter.add_watts(now, watts)
        assert meter.joules >= before
        if watts is not None:
            answered.append((now, watts))
    pairs = list(itertools.pairwise(answered))
    counted = sum((a + b) / 2 * (end - start) for (start, a), (end, b) in pairs if end - start <= GAP_SECONDS)
    assert meter.joules == pytest.approx(counted, abs=1e-9)
    assert meter.gaps == sum(end - start > GAP_SECONDS for (start, _), (end, _) in pairs)
    for (start, _), (end, _) in pairs:
        inside = meter.joules_between(start, end)
        assert (inside is None) == (end - start > GAP_SECONDS)


waves = st.lists(st.tuples(st.floats(0.1, 20), st.floats(0.05, 1.0), st.floats(0, 6.3)), max_size=4)


@settings(deadline=None)
@given(waves, st.floats(0, 30), st.integers(20, 100))
def test_ten_samples_a_second_follow_loads_that_swing_up_to_once_a_second(
    swings: list[tuple[float, float, float]], floor: float, tenths: int
) -> None:
    """The trapezoid rule's own bound: h² / 12 · duration · max |P″|."""
    meter, seconds = Meter(), tenths / 10

    def power(time: float) -> float:
        return floor + sum(a * (1 + math.sin(math.tau * f * time + phase)) for a, f, phase in swings)

    for tenth in range(tenths + 1):
        meter.add_watts(tenth / 10, power(tenth / 10))
    exact = floor * seconds + sum(
        a * (seconds + (math.cos(phase) - math.cos(math.tau * f * seconds + phase)) / (math.tau * f))
        for a, f, phase in swings
    )
    bound = 0.1**2 / 12 * seconds * sum(a * (math.tau * f) ** 2 for a, f, _ in swings)
    assert meter.joules == pytest.approx(exact, abs=bound + 1e-9)
    assert (meter.samples, meter.gaps) == (tenths + 1, 0)


def test_a_gap_is_counted_and_its_energy_is_not() -> None:
    meter = Meter()
    for time in (0.0, 0.5, 2.5, 3.0):
        meter.add_watts(time, 10.0)
    assert meter.joules == pytest.approx(10.0)
    assert meter.gaps == 1


def test_a_sensor_that_does_not_answer_for_over_a_second_makes_a_gap() -> None:
    meter = Meter()
    for tenth in range(31):
        meter.add_watts(tenth / 10, None if 5 < tenth < 20 else 4.0)
    assert meter.gaps == 1
    assert meter.joules == pytest.approx(4.0 * (0.5 + 1.0))


def test_a_counter_that_was_reset_without_a_known_range_adds_nothing() -> None:
    meter = Meter()
    meter.add_counter(0.0, 500.0)
    meter.add_counter(0.1, 1.0)
    meter.add_counter(0.2, 3.0)
    assert meter.joules == pytest.approx(2.0)


@pytest.mark.parametrize("wraps_at", [262143.32885, None])
@pytest.mark.parametrize("after", [0.5, 150_000.0])
def test_a_counter_that_was_reset_leaves_a_gap_and_is_no_wrap(after: float, wraps_at: float | None) -> None:
    meter = Meter(wraps_at)
    for tenth, joules in enumerate((200.0, 203.0, after, after + 2.0)):
        meter.add_counter(tenth / 10, joules)
    assert meter.joules == pytest.approx(5.0)
    assert (meter.gaps, meter.samples) == (1, 4)
    assert meter.joules_between(0.0, 0.3) is None
    assert meter.joules_between(0.2, 0.3) == pytest.approx(2.0)


def test_watts_is_the_mean_of_the_last_second() -> None:
    meter = Meter()
    for tenth in range(31):
        meter.add_watts(tenth / 10, 100.0 if tenth < 15 else 7.0)
    assert meter.watts(3.05) == pytest.approx(7.0)
    assert meter.watts(4.5) is None  # the sensor has gone silent
    assert Meter().watts(0.0) is None


def test_there_are_no_watts_across_a_gap() -> None:
    meter = Meter()
    meter.add_watts(0.0, 5.0)
    meter.add_watts(9.0, 5.0)
    assert meter.watts(9.0) is None


@settings(deadline=None)
@given(st.floats(0, 9.9), st.floats(0, 9.9), st.floats(0, 9.9))
def test_the_parts_of_a_window_add_up(one: float, two: float, three: float) -> None:
    meter = Meter()
    for tenth in range(101):
        meter.add_watts(tenth / 10, 3.0 + tenth % 7)
    first, middle, last = sorted((one, two, three))
    prefill, decode = meter.joules_between(first, middle), meter.joules_between(middle, last)
    whole = meter.joules_between(first, last)
    assert prefill is not None
    assert decode is not None
    assert whole == pytest.approx(prefill + decode, abs=1e-9)


def test_a_window_may_end_just_after_the_last_sample() -> None:
    meter = Meter()
    for tenth in range(11):
        meter.add_watts(tenth / 10, 20.0)
    assert meter.joules_between(0.25, 1.05) == pytest.approx(16.0)
    assert meter.joules_between(0.25, 2.5) is None


def test_a_window_with_a_gap_or_before_the_first_sample_has_no_energy() -> None:
    meter = Meter()
    for time in (1.0, 1.5, 4.0, 4.5):
        meter.add_watts(time, 1.0)
    assert meter.joules_between(0.5, 1.5) is None
    assert meter.joules_between(1.2, 4.2) is None
    assert meter.joules_between(2.0, 4.2) is None
    assert meter.joules_between(4.0, 4.5) == pytest.approx(0.5)


def test_history_is_bounded_and_joules_are_not() -> None:
    meter = Meter()
    seconds = int(4 * HISTORY_SECONDS)
    for second in range(seconds + 1):
        meter.add_watts(float(second), 1.0)
    assert meter.joules == pytest.approx(seconds)
    assert len(meter._history) <= 2 * HISTORY_SECONDS + 2
    assert meter.joules_between(seconds - 10.0, seconds) == pytest.approx(10.0)
    assert meter.joules_between(0.0, 10.0) is None


def rail(name: str, watts: float | None, source: str = "ina3221") -> Rail:
    return Rail(name, source, lambda: watts)


def metered(rails: list[Rail], whole_module_rails: list[str] | None = None) -> PowerMeter:
    """The rails after five samples, 0.1 s apart."""
    now = [0.0]
    meter = PowerMeter(rails, whole_module_rails or [], lambda: now[0])
    for tenth in range(5):
        now[0] = tenth / 10
        meter.sample()
    return meter


def test_the_module_is_the_sum_of_its_rails_and_comes_first() -> None:
    meter = metered([rail("A", 2.0), rail("B", 3.0), rail("C", 9.0)], ["A", "B"])
    first, *rest = meter.rails()
    assert (first.name, first.whole_module) == ("A+B", True)
    assert first.joules == pytest.approx(5.0 * 0.4)
    assert [each.whole_module for each in rest] == [False, False, False]
    assert meter.best() == first


def test_a_module_sum_without_one_of_its_rails_is_no_module() -> None:
    meter = metered([rail("A", 2.0)], ["A", "B"])
    assert [each.name for each in meter.rails()] == ["A"]
    best = meter.best()
    assert best is not None
    assert not best.whole_module


def test_a_silent_rail_silences_the_sum_instead_of_lowering_it() -> None:
    meter = metered([rail("A", 2.0), rail("B", None)], ["A", "B"])
    module = meter.rails()[0]
    assert (module.samples, module.joules) == (0, 0.0)


@pytest.mark.parametrize(
    ("names", "best"),
    [(["package-0", "package-0/core", "psys"], "psys"), (["package-0/core", "package-0"], "package-0")],
)
def test_without_a_module_rail_the_widest_part_speaks(names: list[str], best: str) -> None:
    chosen = metered([rail(name, 1.0, "rapl") for name in names]).best()
    assert chosen is not None
    assert chosen.name == best


def test_without_sensors_nothing_speaks() -> None:
    meter = metered([])
    assert meter.rails() == ()
    assert meter.best() is None
    assert meter.window(0.0, 1.0, 2.0) is None
