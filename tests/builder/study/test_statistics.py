from __future__ import annotations

import numpy as np
import pytest

from edgewright_builder.study.statistics import Estimate, Significance, estimate

STUDIES = 1000


def simulated(effect: float, tasks: int, seeds: int, number: int) -> dict[str, list[float]]:
    """Differences of one simulated study: tasks differ, and seeds within them."""
    generator = np.random.default_rng([number, tasks, seeds])
    of_tasks = 0.5 * generator.standard_normal(tasks) if tasks >= 4 else np.zeros(tasks)
    noise = generator.standard_normal((tasks, seeds))
    return {f"t{index}": list(effect + of_tasks[index] + noise[index]) for index in range(tasks)}


@pytest.mark.timeout(600)  # a minute alone, more on a loaded machine
@pytest.mark.parametrize(("effect", "tasks", "seeds"), [(0.0, 8, 5), (1.0, 5, 5), (0.0, 1, 8), (1.0, 2, 5)])
def test_95_percent_intervals_cover_the_truth_in_93_to_97_percent_of_studies(
    effect: float, tasks: int, seeds: int
) -> None:
    estimates = [estimate(simulated(effect, tasks, seeds, number), 0.95) for number in range(STUDIES)]
    covered = sum(value.low <= effect <= value.high for value in estimates)
    assert 0.93 * STUDIES <= covered <= 0.97 * STUDIES


def test_with_few_groups_the_interval_is_of_these_groups_alone() -> None:
    assert not estimate(simulated(0.0, 3, 5, 0), 0.95).random_groups
    assert estimate(simulated(0.0, 4, 5, 0), 0.95).random_groups


def test_the_same_pairs_give_the_same_interval() -> None:
    pairs = simulated(0.3, 4, 5, 0)
    assert estimate(pairs, 0.95) == estimate(pairs, 0.95)


def test_groups_count_alike_whatever_their_pairs() -> None:
    value = estimate({"many": [1.0] * 10, "few": [3.0] * 2}, 0.95)
    assert value.mean == 2.0


def test_a_group_of_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two pairs"):
        estimate({"one": [1.0]}, 0.95)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.2, 0.9, Significance.DIFFERENT), (-0.9, -0.6, Significance.DIFFERENT), (-0.2, 0.3, Significance.EQUIVALENT),
        (0.1, 0.4, Significance.EQUIVALENT), (-0.2, 0.9, Significance.OPEN),
    ],
)  # fmt: skip
def test_no_difference_can_be_a_result(low: float, high: float, verdict: Significance) -> None:
    assert Estimate((low + high) / 2, low, high, 8, 40, True).verdict(0.5) is verdict
