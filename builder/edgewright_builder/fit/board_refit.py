"""What a board's own measurements say of an engine: the shipped constants, refitted for that board and version."""

from __future__ import annotations

from dataclasses import replace

from edgewright.errors import RefusedError
from edgewright.sizes import format_bytes
from edgewright_builder.fit.board_points import BoardCalibration, MeasuredPoint, load_board
from edgewright_builder.fit.calibration_constants import board_shift, moved_constants
from edgewright_builder.fit.error_bar import board_error_fraction
from edgewright_builder.fit.memory import Calibration, PeakMemory, load_calibration, predict_memory
from edgewright_builder.fit.speed import MeasuredDecode
from edgewright_profiles import DeviceProfile

PLAUSIBLE_FACTOR = 4.0  # a peak this far from the prediction is not this release's


def calibration_for(engine: str, profile: DeviceProfile) -> Calibration:
    """Returns the shipped calibration, refitted to this board where `edgewright calibrate` has measured it."""
    shipped = load_calibration(engine, profile.machine)
    measured = load_board(engine, profile.id)
    return shipped if measured is None else refit(shipped, measured)


def measured_decodes(engine: str, board: str) -> tuple[MeasuredDecode, ...]:
    """Returns how fast, and at what energy, releases have decoded on this board; the latest is the last."""
    measured = load_board(engine, board)
    points = () if measured is None else measured.points
    return tuple(point.decode for point in points if point.decode is not None)


def refit(shipped: Calibration, measured: BoardCalibration) -> Calibration:
    """Returns the shipped calibration moved onto the measured points. Raises RefusedError where that makes no sense."""
    shift_bytes, slope = board_shift(shipped, measured.points)
    moved = moved_constants(shipped, shift_bytes, slope)
    if moved.constant_bytes <= 0 or moved.linear_copies < 0:
        raise RefusedError(
            f"The measured peaks on {measured.board} lie so far below the prediction that the engine itself would "
            "take no memory; measure again after `edgewright bench`."
        )
    return replace(
        moved,
        engine_version=measured.engine_version,
        machine=measured.board,
        of_this_board=True,
        points=len(measured.points),
        error_fraction=board_error_fraction(shipped, measured.points),
    )


def check_point(shipped: Calibration, point: MeasuredPoint) -> PeakMemory:
    """Returns what the shipped calibration says of the point; raises RefusedError for a peak that can't be its."""
    predicted = predict_memory(point.architecture, point.configuration, shipped)
    measured = point.measured_peak_bytes
    if measured < predicted.weights_bytes / 2 or measured > PLAUSIBLE_FACTOR * predicted.peak_bytes:
        raise RefusedError(
            f"A measured peak of {format_bytes(measured)} can't be this release's: its weights take "
            f"{format_bytes(predicted.weights_bytes)}, and {format_bytes(predicted.peak_bytes)} was predicted."
        )
    return predicted
