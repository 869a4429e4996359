"""What a study's pairs show: a difference with its interval, and whether it makes a difference at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 4000
GROUPS_MIN = 4  # below it, groups can't be resampled: an interval from two or three would mean nothing


class Significance(Enum):
    """What an interval says about a difference."""

    DIFFERENT = "different"  # the interval excludes zero
    EQUIVALENT = "equivalent"  # the interval lies within the margin
    OPEN = "open"  # neither


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its interval."""

    mean: float
    low: float
    high: float
    groups: int
    pairs: int
    random_groups: bool  # whether the interval holds for other groups of the same kind, such as other tasks

    def verdict(self, margin: float) -> Significance:
        """Returns what the interval says; a difference within the margin is none, whatever its sign."""
        if -margin < self.low and self.high < margin:
            return Significance.EQUIVALENT
        return Significance.DIFFERENT if self.low > 0 or self.high < 0 else Significance.OPEN


def estimate(differences: Mapping[str, Sequence[float]], interval: float, seed: int = 0) -> Estimate:
    """Returns the mean over groups of the mean over their pairs, with a hierarchical bootstrap-t interval.

    `differences` are, by group (such as a task), the differences of its pairs (such as seeds). With at least four
    groups both levels are resampled, groups and then pairs within them; with fewer the groups are fixed and only pairs
    are. The statistic is studentized, since percentiles of few groups cover too rarely (Davison and Hinkley 1997,
    Bootstrap Methods and their Application, sections 3.8 and 5.2). Raises ValueError for a group with fewer than two
    pairs.
    """
    groups = [np.asarray(values, dtype=float) for values in differences.values()]
    if any(len(values) < 2 for values in groups):
        raise ValueError("a group needs at least two pairs")
    generator = np.random.default_rng(seed)
    random_groups = len(groups) >= GROUPS_MIN
    spread = _between if random_groups else _within
    chosen = _chosen_groups(len(groups), random_groups, generator)
    means, variances = _resampled(groups, chosen, generator)
    mean, error = spread(*_moments(groups))
    again, again_error = spread(means, variances)
    usable = again_error > 0
    low, high = _limits((again[usable] - mean) / again_error[usable], float(mean), float(error), interval)
    return Estimate(float(mean), low, high, len(groups), sum(map(len, groups)), random_groups)


def _limits(statistics: Array, mean: float, error: float, interval: float) -> tuple[float, float]:
    if not len(statistics) or error == 0:
        return mean, mean
    tail = (1 - interval) / 2
    lower, upper = np.quantile(statistics, [tail, 1 - tail])
    return float(mean - upper * error), float(mean - lower * error)


def _moments(groups: Sequence[Array]) -> tuple[Array, Array]:
    """Returns per group the mean of its pairs and the variance of that mean."""
    return (
        np.array([values.mean() for values in groups]),
        np.array([values.var(ddof=1) / len(values) for values in groups]),
    )


def _between(means: Array, _variances: Array) -> tuple[Array, Array]:
    """Returns the mean over the last axis, the groups, and its standard error from their spread."""
    return means.mean(-1), means.std(-1, ddof=1) / np.sqrt(means.shape[-1])


def _within(means: Array, variances: Array) -> tuple[Array, Array]:
    """Returns the same mean, and its standard error from the spread of the pairs within each group."""
    return means.mean(-1), np.sqrt(variances.sum(-1)) / means.shape[-1]


def _chosen_groups(count: int, random_groups: bool, generator: np.random.Generator) -> NDArray[np.int64]:
    """Returns (resamples, groups): which groups each resample consists of."""
    if random_groups:
        return generator.integers(0, count, (RESAMPLES, count))
    return np.broadcast_to(np.arange(count), (RESAMPLES, count))


def _resampled(
    groups: Sequence[Array], chosen: NDArray[np.int64], generator: np.random.Generator
) -> tuple[Array, Array]:
    """Returns (resamples, groups) means and variances of the means, the pairs of each chosen group drawn anew."""
    means, variances = np.empty(chosen.shape), np.empty(chosen.shape)
    for index, values in enumerate(groups):
        places = np.nonzero(chosen == index)
        draws = values[generator.integers(0, len(values), (len(places[0]), len(values)))]
        means[places] = draws.mean(1)
        variances[places] = draws.var(1, ddof=1) / len(values)
    return means, variances
