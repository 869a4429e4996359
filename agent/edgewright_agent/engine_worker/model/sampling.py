"""Drawing a token from logits.

ONNX Runtime GenAI 0.18 samples too, but ignores `top_p` unless `top_k` is set, and then sorts the vocabulary. That
takes 8 ms a token at 49,152 entries, as long as the rest of a 135M model's step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_agent.engine_worker.model.backend import SamplingSettings

BLOCK = 256  # entries summed before the running sum, which is the slow part
TEMPERATURE_MIN = 1e-30  # below it a float32 is 0


def draw(logits: NDArray[np.float32], settings: SamplingSettings, rng: np.random.Generator) -> int:
    """Returns the next token, drawn from `logits` (vocabulary,).

    Nucleus sampling keeps the smallest set of most likely tokens whose probabilities reach `top_p`
    (Holtzman et al. 2020, arXiv 1904.09751).
    """
    if settings.temperature == 0:
        return int(logits.argmax())
    temperature = max(settings.temperature, TEMPERATURE_MIN)
    with np.errstate(over="ignore"):  # at a tiny temperature exp(−∞) = 0 is what is meant
        weights = np.exp((logits - logits.max()) / np.float32(temperature))
    if settings.top_p == 1:
        return _pick(weights, rng.random())
    # Tokens rarer than (1 − p)/V weigh less than 1 − p together, so the nucleus lies among the others.
    total = float(weights.sum(dtype=np.float64))
    candidates = np.flatnonzero(weights >= 0.999 * (1 - settings.top_p) / weights.size * total)
    exact = np.exp((logits[candidates].astype(np.float64) - logits.max()) / temperature)
    total += float(exact.sum() - weights[candidates].sum(dtype=np.float64))
    order = np.argsort(-exact, kind="stable")
    size = int(np.searchsorted(np.cumsum(exact[order]), settings.top_p * total)) + 1
    nucleus = order[:size]
    return int(candidates[nucleus[_pick(exact[nucleus], rng.random())]])


def _pick(weights: NDArray[np.floating[Any]], at: float) -> int:
    """Returns the index whose share of the weights' sum covers the fraction `at` of it; never one that weighs 0."""
    blocks = np.cumsum(np.add.reduceat(weights, np.arange(0, weights.size, BLOCK), dtype=np.float64))
    target = at * blocks[-1]
    block = min(int(np.searchsorted(blocks, target, side="right")), blocks.size - 1)
    inside = weights[block * BLOCK : (block + 1) * BLOCK]
    left = target - (blocks[block - 1] if block else 0.0)
    index = int(np.searchsorted(np.cumsum(inside, dtype=np.float64), left, side="right"))
    return block * BLOCK + min(index, int(np.flatnonzero(inside)[-1]))
