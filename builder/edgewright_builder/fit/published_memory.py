"""What other engines' published memory says: two constants on top of the same arithmetic explain it.

    TensorRT Edge-LLM   peak = weights + kv + a + b · tokens · 2 · (2·intermediate + 2·hidden)
    ExecuTorch          RSS  = file    + kv + a + b · hidden

Edge-LLM: 4-bit linears with one fp16 scale per 128, embedding and head apart and in fp16 even where the model ties
them, fp16 KV cache for its whole capacity; a is CUDA context and TensorRT, b counts the fp16 buffers of a prompt, as
wide as an MLP, that TensorRT plans for. ExecuTorch: float32 KV cache of 2,048 tokens. The points are in
`calibrations/published.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.catalogue import find_builtin

MIB = 2**20
EDGE_LLM_PROMPT_TOKENS = 2048  # maxInputLen of the published runs
EDGE_LLM_CACHE_TOKENS = 2200  # KV capacity
EXECUTORCH_CACHE_TOKENS = 2048  # --max_context_length of its recipes


@dataclass(frozen=True)
class PublishedPoint:
    """One row of a published table."""

    engine: str  # tensorrt-edge-llm or executorch
    board: str
    model: str  # a built-in model
    variant: str  # precision, as the table names it
    measured_mib: float
    file_mib: float | None = None  # of the program, where the table gives it

    @property
    def architecture(self) -> Architecture:
        """The architecture of the model."""
        builtin = find_builtin(self.model)
        assert builtin is not None, self.model
        return architecture_from_config(builtin.config)


Terms = Callable[[PublishedPoint], tuple[float, float]]  # MiB that arithmetic gives, and what b multiplies


def load_published(engine: str) -> tuple[PublishedPoint, ...]:
    """Returns the points of one engine."""
    file = resources.files(__package__) / "calibrations" / "published.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["points"]
    return tuple(PublishedPoint(**row) for row in rows if row["engine"] == engine)


def edge_llm_terms(point: PublishedPoint) -> tuple[float, float]:
    """Returns the terms for `fit_two_constants`."""
    model = point.architecture
    linear = model.linear_parameters * (4 + 16 / 128) / 8
    embeddings = 2 * model.embedding_parameters * 2
    kv_cache = model.kv_elements(EDGE_LLM_CACHE_TOKENS) * 2
    prompt = EDGE_LLM_PROMPT_TOKENS * 2 * (2 * model.intermediate_size + 2 * model.hidden_size)
    return (linear + embeddings + kv_cache) / MIB, prompt / MIB


def executorch_terms(point: PublishedPoint) -> tuple[float, float]:
    """Returns the terms for `fit_two_constants`."""
    assert point.file_mib is not None, point
    kv_cache = point.architecture.kv_elements(EXECUTORCH_CACHE_TOKENS) * 4
    return point.file_mib + kv_cache / MIB, float(point.architecture.hidden_size)


def fit_two_constants(points: Sequence[PublishedPoint], terms: Terms) -> tuple[float, float]:
    """(a in MiB, b) by least squares of the relative errors."""
    rows = np.array([(1.0, terms(point)[1]) for point in points])
    rest = np.array([point.measured_mib - terms(point)[0] for point in points])
    weights = np.array([1 / point.measured_mib for point in points])
    (a, b), *_ = np.linalg.lstsq(rows * weights[:, None], rest * weights, rcond=None)
    return float(a), float(b)


def published_error(point: PublishedPoint, constants: tuple[float, float], terms: Terms) -> float:
    """(predicted − measured) / measured."""
    known, factor = terms(point)
    return (known + constants[0] + constants[1] * factor) / point.measured_mib - 1


def leave_one_model_out(points: Sequence[PublishedPoint], terms: Terms) -> list[float]:
    """Returns each point's error under constants fitted to the other models' points, in the order of `points`."""
    errors = []
    for point in points:
        others = [other for other in points if other.model != point.model]
        errors.append(published_error(point, fit_two_constants(others, terms), terms))
    return errors
