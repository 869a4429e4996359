"""The constants of a calibration from measured peaks, and how far predictions are off for models they never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any

import numpy as np

from edgewright_agent.errors import InputError
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Calibration, Configuration, Memory, predict_memory


@dataclass(frozen=True)
class Measurement:
    """One configuration as it ran. `peak_bytes` is what `predict_memory` predicts."""

    model: str
    architecture: Architecture
    configuration: Configuration
    peak_bytes: int  # RSS high-water mark of the process tree while serving
    loaded_bytes: int  # PSS, no request yet
    rest_bytes: int  # PSS after a request that filled the context
    cgroup_peak_bytes: int | None  # of the whole life, the cached file of weights included


def load_measurements(engine: str) -> tuple[Measurement, ...]:
    """The points the shipped calibration of `engine` rests on."""
    file = resources.files(__package__) / "calibrations" / f"{engine}.points.json"
    if not file.is_file():
        raise InputError(f"There are no measurements of the engine {engine!r}.")
    return tuple(_measurement(point) for point in json.loads(file.read_text(encoding="utf-8"))["points"])


def measurements_to_json(points: Sequence[Measurement]) -> dict[str, Any]:
    """What `load_measurements` reads."""
    return {"points": [asdict(point) for point in points]}


def fit_calibration(blank: Calibration, points: Sequence[Measurement]) -> Calibration:
    """Least squares of relative errors for what arithmetic can't tell. `blank` gives all the rest.

    Five constants: runtime, tokenizer per token of vocabulary, copies of linears, head and logits.
    """
    blank = replace(
        blank, constant_bytes=0, tokenizer_bytes_per_token=0.0, linear_copies=1.0, embedding_copies=1.0,
        logits_copies=1.0,
    )  # fmt: skip
    rows, rest, peaks = [], [], []
    for point in points:
        memory = predict_memory(point.architecture, point.configuration, blank)
        head = _head_bytes(memory)
        rows.append([1.0, point.architecture.vocab_size, memory.linear_bytes, head, memory.logits_bytes])
        rest.append(point.peak_bytes - memory.steady_bytes + memory.linear_bytes + head + memory.logits_bytes)
        peaks.append(point.peak_bytes)
    weights = 1 / np.array(peaks, float)
    matrix = np.array(rows, float) * weights[:, None]
    scale = np.abs(matrix).max(axis=0)
    found, *_ = np.linalg.lstsq(matrix / scale, np.array(rest, float) * weights, rcond=None)
    constant, tokenizer, linear, embedding, logits = (float(value) for value in found / scale)
    return replace(
        blank,
        points=len(points),
        constant_bytes=round(constant),
        tokenizer_bytes_per_token=round(tokenizer, 1),
        linear_copies=round(linear, 4),
        embedding_copies=round(embedding, 4),
        logits_copies=round(logits, 3),
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
    found = {}
    for model in dict.fromkeys(point.model for point in points):
        others = [point for point in points if point.model != model]
        found[model] = errors(
            fit_calibration(blank, others), [point for point in points if point.model == model]
        )
    return found


def _head_bytes(memory: Memory) -> int:
    """Of the tensor logits are computed with."""
    name = "embedding" if memory.tied else "head"
    return next(tensor.stored_bytes for tensor in memory.tensors if tensor.name == name)


def _measurement(point: dict[str, Any]) -> Measurement:
    parts = {
        "architecture": Architecture(**point["architecture"]),
        "configuration": Configuration(**point["configuration"]),
    }
    return Measurement(**{**point, **parts})
