"""What a board's own measurements say of an engine: the shipped constants, refitted for that board and version.

    measured peak − h(m̂) = a + b · linear bytes

With one point, or several of one size, only the engine's constant moves (a). With points of different sizes the copies
it keeps of the linear layers move too (b). What a point decoded in, and the energy it took, is what `speed` predicts
that board from. Points are kept in the user's data folder, one file a board and engine.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright.folders import expanded, home
from edgewright.sizes import format_bytes
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import (
    Calibration,
    Configuration,
    PeakMemory,
    load_calibration,
    predict_memory,
)
from edgewright_builder.fit.speed import MeasuredDecode
from edgewright_profiles import DeviceProfile

SCHEMA = "edgewright.calibration.v1"
SIZES_APART = 1.25  # linear layers must differ by this factor before a slope means anything
ERROR_FRACTION_MIN = 0.01
SIZE_MAX = 2**40  # of any figure of an architecture or a configuration
PLAUSIBLE_FACTOR = 4.0  # a peak this far from the prediction is not this release's


@dataclass(frozen=True)
class MeasuredPoint:
    """One release as it ran on a board."""

    release: str  # SHA-256 of its manifest
    architecture: Architecture
    configuration: Configuration
    measured_peak_bytes: int
    measure: str  # how: pss, rss, cgroup
    decode: MeasuredDecode | None = None  # None: its speed was not measured


@dataclass(frozen=True)
class BoardCalibration:
    """All points of one board, engine and version."""

    board: str
    engine: str
    engine_version: str
    points: tuple[MeasuredPoint, ...]

    def with_point(self, point: MeasuredPoint) -> BoardCalibration:
        """Adds this point. It replaces an earlier one of the same release and context, but for a speed of it."""
        others = tuple(each for each in self.points if _key(each) != _key(point))
        earlier = next((each.decode for each in self.points if _key(each) == _key(point)), None)
        return replace(self, points=(*others, replace(point, decode=point.decode or earlier)))


def data_folder() -> Path:
    """Returns where what is learned on this machine is kept: EDGEWRIGHT_DATA, else the platform's folder for such."""
    if chosen := os.environ.get("EDGEWRIGHT_DATA"):
        return expanded(chosen)
    if sys.platform == "darwin":
        return home() / "Library" / "Application Support" / "edgewright"
    return expanded(os.environ.get("XDG_DATA_HOME") or home() / ".local" / "share") / "edgewright"


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
    shift_bytes, slope = _fit(shipped, measured.points)
    moved = _moved(shipped, shift_bytes, slope)
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
        error_fraction=_error_fraction(shipped, measured.points),
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


def board_file(engine: str, board: str) -> Path:
    """Returns where the points of a board are kept."""
    return data_folder() / "calibrations" / f"{board}--{engine}.json"


def load_board(engine: str, board: str) -> BoardCalibration | None:
    """Returns what was measured there; None if nothing was. Raises InputError for a damaged file."""
    path = board_file(engine, board)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _from_document(document)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutsideError(
            f"The calibration {path} can't be read: {error.strerror}. Check its folder."
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"The calibration {path} is damaged ({type(error).__name__}); delete it and calibrate again."
        ) from None


def save_board(measured: BoardCalibration) -> Path:
    """Writes the points durably; returns where. Raises OutsideError."""
    from edgewright.durable import FileSystem, write_durably

    path = board_file(measured.engine, measured.board)
    document = {"schema_version": SCHEMA, **asdict(measured)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(FileSystem(), path, (json.dumps(document, indent=2) + "\n").encode())
    except OSError as error:
        raise OutsideError(
            f"The calibration can't be written to {path}: {error.strerror}. Check its folder and the disk."
        ) from None
    return path


def point_from_basis(
    release: str, basis: Mapping[str, Any], measured_peak_bytes: int, measure: str
) -> MeasuredPoint:
    """Returns the point of a release whose manifest says what it was planned from; raises RefusedError if it does
    not.
    """
    try:
        architecture = Architecture(**basis["architecture"])
        configuration = Configuration(**basis["configuration"])
        _require_sizes(architecture)
        _require_sizes(configuration)
    except (KeyError, TypeError):
        raise RefusedError(
            f"Release {release[:12]} does not say which architecture and configuration it was planned from; "
            "build and push it again with this version."
        ) from None
    return MeasuredPoint(release, architecture, configuration, measured_peak_bytes, measure)


def _require_sizes(basis: Architecture | Configuration) -> None:
    """Raises TypeError for a size that no model has: what stands in a manifest is whatever its maker wrote."""
    for size in fields(basis):
        value = getattr(basis, size.name)
        if size.type == "int" and (
            type(value) is not int or not (size.default is MISSING) <= value < SIZE_MAX
        ):
            raise TypeError(size.name)


def _key(point: MeasuredPoint) -> tuple[str, Configuration]:
    return point.release, point.configuration


def _fit(shipped: Calibration, points: Sequence[MeasuredPoint]) -> tuple[float, float]:
    """(a, b) by least squares; b is 0 where the sizes are too much alike."""
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


def _moved(shipped: Calibration, shift_bytes: float, slope: float) -> Calibration:
    return replace(
        shipped,
        constant_bytes=shipped.constant_bytes + round(shift_bytes),
        linear_copies=shipped.linear_copies + slope,
    )


def _error_fraction(shipped: Calibration, points: Sequence[MeasuredPoint]) -> float:
    """Returns the worst error in predicting a point from the others; with too few of them, no less than the shipped
    one.
    """
    errors = []
    for index, point in enumerate(points):
        others = [*points[:index], *points[index + 1 :]]
        if others:
            model = _moved(shipped, *_fit(shipped, others))
            predicted = predict_memory(point.architecture, point.configuration, model).peak_bytes
            errors.append(abs(predicted / point.measured_peak_bytes - 1))
    floor = ERROR_FRACTION_MIN if len(points) > 2 else shipped.error_fraction
    return max([floor, *errors])


def _from_document(document: Mapping[str, Any]) -> BoardCalibration:
    if document["schema_version"] != SCHEMA:
        raise ValueError(document["schema_version"])
    points = tuple(_point_from_document(point) for point in document["points"])
    return BoardCalibration(
        str(document["board"]), str(document["engine"]), str(document["engine_version"]), points
    )


def _point_from_document(point: Mapping[str, Any]) -> MeasuredPoint:
    decode = point.get("decode")  # files of before have none
    typed = {
        "architecture": Architecture(**point["architecture"]),
        "configuration": Configuration(**point["configuration"]),
        "decode": None if decode is None else MeasuredDecode(**decode),
    }
    return MeasuredPoint(**{**point, **typed})
