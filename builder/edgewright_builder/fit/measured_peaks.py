"""The peaks that shipped calibrations rest on: each configuration that was run, and the memory it took."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Configuration


@dataclass(frozen=True)
class Measurement:
    """One configuration as it ran. `peak_bytes` is what `predict_memory` predicts."""

    model: str
    architecture: Architecture
    configuration: Configuration
    peak_bytes: int  # RSS high-water mark of the process tree while serving
    loaded_bytes: int | None = None  # PSS, no request yet
    rest_bytes: int | None = None  # PSS after a request that filled the context
    cgroup_peak_bytes: int | None = None  # of the whole life, the cached file of weights included


def load_measurements(engine: str) -> tuple[Measurement, ...]:
    """Returns the points that a shipped calibration rests on, such as `llama.cpp` or `onnxruntime-genai.aarch64`."""
    file = resources.files(__package__) / "calibrations" / f"{engine}.points.json"
    if not file.is_file():
        raise InputError(f"There are no measurements of the engine {engine!r}.")
    return measurements_from_json(json.loads(file.read_text(encoding="utf-8")))


def measurements_from_json(document: dict[str, Any]) -> tuple[Measurement, ...]:
    """Reads what `measurements_to_json` wrote."""
    return tuple(_measurement(point) for point in document["points"])


def measurements_to_json(points: Sequence[Measurement]) -> dict[str, Any]:
    """Returns what `load_measurements` reads."""
    return {"points": [asdict(point) for point in points]}


def _measurement(point: dict[str, Any]) -> Measurement:
    parts = {
        "architecture": Architecture(**point["architecture"]),
        "configuration": Configuration(**point["configuration"]),
    }
    return Measurement(**{**point, **parts})
