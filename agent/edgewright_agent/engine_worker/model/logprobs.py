"""Log-probabilities of a generated token and of what might have come instead.

They are the model's own: at temperature 1, before nucleus sampling and before a grammar rules anything out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright_agent.engine_worker.backend import Logits


@dataclass(frozen=True)
class TokenLogprobs:
    """Of one generated token."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # the likeliest tokens and theirs, likeliest first


def token_logprobs(row: Logits, token: int, count: int) -> TokenLogprobs:
    """From the logits of one position (shape: vocabulary); `count` alternatives, ties by the lower token."""
    highest = row.max()
    normaliser = float(highest) + float(np.log(np.exp(row - highest, dtype=np.float32).sum(dtype=np.float64)))
    top = np.argpartition(-row, min(count, row.size - 1))[:count] if count else np.empty(0, np.intp)
    ordered = sorted(((float(row[index]) - normaliser, int(index)) for index in top), key=_likeliest)
    return TokenLogprobs(float(row[token]) - normaliser, tuple((index, value) for value, index in ordered))


def _likeliest(pair: tuple[float, int]) -> tuple[float, int]:
    return -pair[0], pair[1]
