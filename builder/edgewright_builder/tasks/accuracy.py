"""Accuracy from log-likelihoods, its standard error, and the paired difference of two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Metric = Literal["acc", "acc_norm"]


@dataclass(frozen=True)
class AccuracyEstimate:
    """Share of correct rows and the standard error of that share, as lm-evaluation-harness computes both."""

    value: float
    standard_error: float
    rows: int


def choose(log_likelihoods: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """Returns the index of the most likely choice, the first of equals; with lengths, per character."""
    if lengths is None:
        return max(range(len(log_likelihoods)), key=lambda i: log_likelihoods[i])
    return max(range(len(log_likelihoods)), key=lambda i: log_likelihoods[i] / max(lengths[i], 1))


def accuracy(correct: Sequence[bool]) -> AccuracyEstimate:
    """Returns the mean and its standard error s / √n; s is the standard deviation over n − 1 (0 for one row)."""
    value, standard_error = _mean([float(right) for right in correct])
    return AccuracyEstimate(value, standard_error, len(correct))


def paired_difference(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float]:
    """Returns (accuracy of b − accuracy of a, its standard error) over the same rows.

    The error comes from the differences row by row. Rows that both models get right or wrong add nothing, so it is
    smaller than that of two separate accuracies. Raises ValueError if the lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired outcomes must be of the same rows: {len(a)} against {len(b)}")
    return _mean([float(right) - float(left) for left, right in zip(a, b, strict=True)])


def _mean(values: Sequence[float]) -> tuple[float, float]:
    n = len(values)
    if n == 0:
        raise ValueError("no rows")
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    return mean, math.sqrt(variance / n)
