"""The constants of a calibration from measured peaks, and how far predictions are off for models they never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any

import numpy as np

from edgewright.errors import InputError
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Calibration, Configuration, predict_memory


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


def fit_calibration(blank: Calibration, points: Sequence[Measurement]) -> Calibration:
    """Returns the runtime's constant and its bytes per token of vocabulary, by least squares of relative errors.

    `blank` gives all the rest: what is left after arithmetic has told what it can is no more than these two.
    """
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


def _measurement(point: dict[str, Any]) -> Measurement:
    parts = {
        "architecture": Architecture(**point["architecture"]),
        "configuration": Configuration(**point["configuration"]),
    }
    return Measurement(**{**point, **parts})
