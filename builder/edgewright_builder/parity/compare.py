"""Logits of the engine that serves against those of transformers, for sequences that pass every limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewright_builder.fit.proof.tiny_config import ORIGINAL_POSITIONS, TOKENS, VOCABULARY, WINDOW

if TYPE_CHECKING:
    from torch import nn

Logits = NDArray[np.float32]  # (tokens, vocabulary)
Tokens = Sequence[int]
# Tokens of the sequences. In a cache of rows the last one gets a row narrower than the window.
LONG, SHORTER, SHORT = TOKENS, TOKENS - 37, 28
PAST_LIMITS = max(ORIGINAL_POSITIONS, WINDOW)
FIRST_WORD = 7  # ids before it are special tokens
LOGPROB_MIN = -80.0  # float32 holds no smaller probability to all its digits


@dataclass(frozen=True)
class Served:
    """What an engine says of each position of the sequences."""

    logits: Sequence[Logits]  # one for each sequence
    are_logprobs: bool = False  # logits up to one constant a position


def sequences(words: int = VOCABULARY - FIRST_WORD) -> list[list[int]]:
    """Returns three sequences of the first so many words of the vocabulary."""
    draws = (np.random.default_rng(seed) for seed in range(3))
    lengths = (LONG, SHORTER, SHORT)
    return [
        [int(token) for token in draw.integers(FIRST_WORD, FIRST_WORD + words, length)]
        for draw, length in zip(draws, lengths, strict=True)
    ]


def comparison(
    model: nn.Module, tokens: Sequence[Tokens], served: Served, tolerance: float
) -> dict[str, Any]:
    """Returns how near an engine's logits are to those of `model`, as `Proof` has it."""
    expected = np.concatenate([_logits(model, sequence) for sequence in tokens])
    positions = np.concatenate([np.arange(len(sequence)) for sequence in tokens])
    deviation, told = float(expected.std()), np.concatenate(list(served.logits))
    if served.are_logprobs:
        expected, told = (np.maximum(each, LOGPROB_MIN) for each in (_logprobs(expected), told))
    past = positions >= PAST_LIMITS
    return {
        "max_logit_difference": float(abs(expected - told).max()),
        "logit_deviation": deviation,
        "argmax_agreement": _agreement(expected[past], told[past], tolerance * deviation),
        "tokens": len(positions),
    }


def _agreement(expected: Logits, told: Logits, tolerance: float) -> float:
    """Returns the share of positions where both choose the same token, or tokens that tie."""
    best = expected.max(axis=-1)
    chosen = np.take_along_axis(expected, told.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    return float((chosen >= best - tolerance).mean())


def _logits(model: nn.Module, sequence: Tokens) -> Logits:
    import torch

    with torch.inference_mode():
        logits: Logits = model(torch.tensor([sequence])).logits[0].float().numpy()
    return logits


def _logprobs(logits: Logits) -> Logits:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logprobs: Logits = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logprobs
