"""What a study's pairs show where both sides are equally near to their teacher at 16 bits.

An under-trained model has less to lose and looks robust. So each difference is read off, from one straight line through
the pairs, where the two 16-bit models are equally far from their teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright_builder.study.statistics import GROUPS_MIN, Array, Estimate


@dataclass(frozen=True)
class _Line:
    """A slope that all groups share, fitted within them, and what it leaves."""

    slope: float
    slope_variance: float
    residual_variance: float
    degrees_of_freedom: int


def at_equal_divergence(
    pairs: Mapping[str, Sequence[tuple[float, float]]], interval: float
) -> Estimate | None:
    """Returns the mean over groups of the difference at a covariate of zero; None where no line can be fitted.

    `pairs` are, by group (such as a task), each pair's covariate and difference. Every group has a level of its own and
    all share one slope, so a group that differs in both does not tilt the line (analysis of covariance: Cochran 1957,
    Biometrics 13, 261). The interval is Student's t with the slope's error in it: far from zero it is wide. With at
    least four groups it holds for other groups too, with fewer for these alone.
    """
    groups = [np.asarray(values, dtype=float).reshape(-1, 2) for values in pairs.values()]
    line = _fitted(groups)
    if line is None:
        return None
    covariates = np.array([values[:, 0].mean() for values in groups])
    levels = np.array([values[:, 1].mean() for values in groups]) - line.slope * covariates
    random_groups = len(groups) >= GROUPS_MIN
    level_variance, freedom = _level_variance(groups, levels, line, random_groups=random_groups)
    error = np.sqrt(level_variance + covariates.mean() ** 2 * line.slope_variance)
    reach = float(error) * _student(interval, freedom)
    mean = float(levels.mean())
    return Estimate(mean, mean - reach, mean + reach, len(groups), sum(map(len, groups)), random_groups)


def _fitted(groups: Sequence[Array]) -> _Line | None:
    """Returns the line by least squares; None where the covariate does not vary or nothing is left to judge it by."""
    centred = np.concatenate([values - values.mean(0) for values in groups])
    spread = float((centred[:, 0] ** 2).sum())
    freedom = len(centred) - len(groups) - 1
    if all(np.ptp(values[:, 0]) == 0 for values in groups) or freedom < 1:
        return None
    slope = float((centred[:, 0] * centred[:, 1]).sum()) / spread
    residual_variance = float(((centred[:, 1] - slope * centred[:, 0]) ** 2).sum()) / freedom
    return _Line(slope, residual_variance / spread, residual_variance, freedom)


def _level_variance(
    groups: Sequence[Array], levels: Array, line: _Line, *, random_groups: bool
) -> tuple[float, int]:
    """Returns the variance of the groups' mean level, and its degrees of freedom."""
    if random_groups:
        between = float(levels.var(ddof=1)) / len(levels)
        return between, min(len(levels) - 1, line.degrees_of_freedom)
    within = line.residual_variance * sum(1 / len(values) for values in groups) / len(groups) ** 2
    return within, line.degrees_of_freedom


def _student(interval: float, degrees_of_freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + interval) / 2, degrees_of_freedom))
