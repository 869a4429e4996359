"""What a board has measured of the releases it served: kept in the user's data folder, one file a board and engine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright.folders import expanded, home
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Configuration
from edgewright_builder.fit.speed import MeasuredDecode

SCHEMA = "edgewright.calibration.v1"
SIZE_MAX = 2**40  # of any figure of an architecture or a configuration


@dataclass(frozen=True)
class MeasuredPoint:
    """One release as it ran on a board."""

    release: str  # SHA-256 of its manifest
    architecture: Architecture
    configuration: Configuration
    measured_peak_bytes: int
    measure: str  # how: "rss", "pss, peak rss" or "pss, peaks added"
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
