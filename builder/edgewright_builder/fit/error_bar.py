"""How wide the interval about a predicted peak is: what predictions missed by for models and points they never saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgewright_builder.fit.board_points import MeasuredPoint
from edgewright_builder.fit.calibration_constants import board_shift, fit_calibration, moved_constants
from edgewright_builder.fit.measured_peaks import Measurement
from edgewright_builder.fit.memory import Calibration, predict_memory

ERROR_MARGIN = 1.25  # the interval that ships reaches this far past the worst miss
ERROR_FRACTION_MIN = 0.01  # of a board's own calibration


def shipped_error_fraction(misses: Iterable[float], least: float = 0.0) -> float:
    """Returns the half-width of the interval that ships, as a share of the prediction."""
    return round(max(least, ERROR_MARGIN * max(map(abs, misses))), 3)


def errors(calibration: Calibration, points: Sequence[Measurement]) -> list[float]:
    """(predicted − measured) / measured of each point."""
    return [
        predict_memory(point.architecture, point.configuration, calibration).peak_bytes / point.peak_bytes - 1
        for point in points
    ]


def leave_one_model_out(blank: Calibration, points: Sequence[Measurement]) -> dict[str, list[float]]:
    """Errors of each model's points under constants fitted to all other models."""
    errors_by_model = {}
    for model in dict.fromkeys(_family(point) for point in points):
        own = [point for point in points if _family(point) == model]
        others = [point for point in points if _family(point) != model]
        errors_by_model[model] = errors(fit_calibration(blank, others), own)
    return errors_by_model


def _family(point: Measurement) -> str:
    """A model and its untied variant have most of their memory in common."""
    return point.model.removesuffix("-untied")


def board_error_fraction(shipped: Calibration, points: Sequence[MeasuredPoint]) -> float:
    """Returns the worst error in predicting a point from the others; with too few of them, no less than the shipped
    one.
    """
    errors = []
    for index, point in enumerate(points):
        others = [*points[:index], *points[index + 1 :]]
        if others:
            model = moved_constants(shipped, *board_shift(shipped, others))
            predicted = predict_memory(point.architecture, point.configuration, model).peak_bytes
            errors.append(abs(predicted / point.measured_peak_bytes - 1))
    floor = ERROR_FRACTION_MIN if len(points) > 2 else shipped.error_fraction
    return max([floor, *errors])
