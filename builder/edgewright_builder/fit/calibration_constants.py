"""The constants of a calibration, by least squares from measured peaks: those that ship, and what one board adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgewright.errors import RefusedError
from edgewright_builder.fit.board_points import MeasuredPoint
from edgewright_builder.fit.measured_peaks import Measurement
from edgewright_builder.fit.memory import Calibration, predict_memory

SIZES_APART = 1.25  # linear layers must differ by this factor before a slope means anything


def fit_calibration(blank: Calibration, points: Sequence[Measurement]) -> Calibration:
    """Returns the runtime's constant and its bytes per token of vocabulary, by least squares of relative errors.

    `blank` gives all the rest: what is left after arithmetic has told what it can is no more than these two.
    """
    import numpy as np

    blank = replace(blank, constant_bytes=0, tokenizer_bytes_per_token=0.0)
    peaks = np.array([point.peak_bytes for point in points], float)
    known = [predict_memory(point.architecture, point.configuration, blank).peak_bytes for point in points]
    rows = np.array([(1e6, point.architecture.vocab_size) for point in points])
    solution, *_ = np.linalg.lstsq(rows / peaks[:, None], 1 - np.array(known) / peaks, rcond=None)
    return replace(
        blank,
        points=len(points),
        constant_bytes=round(1e6 * float(solution[0])),
        tokenizer_bytes_per_token=round(float(solution[1]), 1),
        largest_parameters=max(point.architecture.parameters for point in points),
        longest_context_tokens=max(point.configuration.context_tokens for point in points),
    )


def board_shift(shipped: Calibration, points: Sequence[MeasuredPoint]) -> tuple[float, float]:
    """Returns (a, b) by least squares of

        measured peak − h(m̂) = a + b · linear bytes

    b is 0 where the sizes are too much alike. Raises RefusedError without a point.
    """
    if not points:
        raise RefusedError("There is no measured point to calibrate from.")
    predicted = [predict_memory(point.architecture, point.configuration, shipped) for point in points]
    sizes = [float(memory.linear_bytes) for memory in predicted]
    residuals = [
        float(point.measured_peak_bytes - memory.peak_bytes)
        for point, memory in zip(points, predicted, strict=True)
    ]
    mean_size, mean_residual = sum(sizes) / len(sizes), sum(residuals) / len(residuals)
    if max(sizes) < SIZES_APART * min(sizes):
        return mean_residual, 0.0
    covariance = sum((s - mean_size) * (r - mean_residual) for s, r in zip(sizes, residuals, strict=True))
    slope = covariance / sum((size - mean_size) ** 2 for size in sizes)
    return mean_residual - slope * mean_size, slope


def moved_constants(shipped: Calibration, shift_bytes: float, slope: float) -> Calibration:
    """Returns the shipped constants with what a board adds: to the engine's constant, and to the copies it keeps."""
    return replace(
        shipped,
        constant_bytes=shipped.constant_bytes + round(shift_bytes),
        linear_copies=shipped.linear_copies + slope,
    )
