from __future__ import annotations

import numpy as np
import pytest

from edgewright_builder.study.equal_divergence import at_equal_divergence

STUDIES = 2000
LEVEL, SLOPE = 1.0, 3.0


def simulated(
    covariate_mean: float, groups: int, pairs: int, number: int
) -> dict[str, list[tuple[float, float]]]:
    """Covariates and differences of one simulated study; with four groups or more their levels differ."""
    generator = np.random.default_rng([number, groups, pairs])
    covariates = covariate_mean + generator.standard_normal((groups, pairs))
    of_groups = 2.0 * generator.standard_normal(groups) if groups >= 4 else np.zeros(groups)
    noise = generator.standard_normal((groups, pairs))
    differences = LEVEL + of_groups[:, None] + SLOPE * covariates + noise
    return {
        f"t{index}": list(zip(covariates[index], differences[index], strict=True)) for index in range(groups)
    }


def coverage(covariate_mean: float, groups: int, pairs: int) -> float:
    estimates = [
        at_equal_divergence(simulated(covariate_mean, groups, pairs, number), 0.8)
        for number in range(STUDIES)
    ]
    return sum(value is not None and value.low <= LEVEL <= value.high for value in estimates) / STUDIES


@pytest.mark.parametrize("covariate_mean", [0.0, 2.0, 5.0])
@pytest.mark.parametrize(("groups", "pairs"), [(1, 6), (2, 3), (8, 5)])
def test_80_percent_intervals_cover_the_truth_however_far_from_zero_the_pairs_are(
    covariate_mean: float, groups: int, pairs: int
) -> None:
    assert 0.77 <= coverage(covariate_mean, groups, pairs) <= 0.86


def test_what_the_covariate_explains_is_taken_out() -> None:
    pairs = [(value, 1.0 + 3 * value) for value in (0.1, 0.2, 0.3, 0.4)]
    value = at_equal_divergence({"all": pairs}, 0.9)
    assert value is not None
    assert (value.mean, value.low, value.high) == pytest.approx((1.0, 1.0, 1.0))


def test_a_group_that_differs_in_both_does_not_tilt_the_line() -> None:
    """Without levels of their own the two groups would show a slope of ten, and within each there is none."""
    groups = {"a": [(0.0, 0.0), (0.1, 0.1), (0.2, 0.0)], "b": [(1.0, 10.0), (1.1, 10.1), (1.2, 10.0)]}
    value = at_equal_divergence(groups, 0.9)
    assert value is not None
    assert value.mean == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize(
    "pairs", [[(0.1, 1.0), (0.1, 2.0), (0.1, 3.0)], [(0.1, 1.0), (0.2, 2.0)]], ids=["no spread", "two pairs"]
)
def test_pairs_that_allow_no_line_give_no_figure(pairs: list[tuple[float, float]]) -> None:
    assert at_equal_divergence({"all": pairs}, 0.9) is None
