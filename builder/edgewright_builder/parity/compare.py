"""Logits of the engine that serves against those of transformers, for sequences that pass every limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgewright_builder.fit.proof.record import TOLERANCE
from edgewright_builder.fit.proof.tiny_config import ORIGINAL_POSITIONS, POSITIONS, TOKENS, VOCABULARY, WINDOW

if TYPE_CHECKING:
    from torch import nn

    from edgewright_agent.engine_worker.model.onnx import OnnxBackend

Logits = NDArray[np.float32]  # (tokens, vocabulary)
SLICE_TOKENS = 70  # prompts are read in slices
STEPS = 9  # tokens at the end of a sequence that are generated one by one
LONG, SHORTER, SHORT = (
    TOKENS,
    TOKENS - 37,
    28,
)  # tokens of the sequences; the last gets a row narrower than the window
PAST_LIMITS = max(ORIGINAL_POSITIONS, WINDOW)
FIRST_WORD = 7  # ids before it are special tokens


def logits_of(model: nn.Module, engine_folder: Path, tokenizer_folder: Path) -> tuple[Logits, Logits, Logits]:
    """Returns (transformers' logits, the engine's, positions): those of all sequences, one after another."""
    from edgewright_agent.engine_worker.model.onnx import OnnxBackend

    sequences = [_sequence(length, seed) for seed, length in enumerate((LONG, SHORTER, SHORT))]
    backend = OnnxBackend(engine_folder, tokenizer_folder, POSITIONS, threads=1, concurrency=2)
    served = [*_served(backend, sequences[:2]), *_served(backend, sequences[2:])]
    expected = [_expected(model, sequence) for sequence in sequences]
    positions = [np.arange(len(sequence), dtype=np.float32) for sequence in sequences]
    return np.concatenate(expected), np.concatenate(served), np.concatenate(positions)


def agreement(expected: Logits, served: Logits, positions: Logits) -> float:
    """Returns the share of positions past the limits where both choose the same token, or tokens that tie."""
    best = expected.max(axis=-1)
    chosen = np.take_along_axis(expected, served.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    same = chosen >= best - TOLERANCE * expected.std()
    return float(same[positions >= PAST_LIMITS].mean())


def _sequence(length: int, seed: int) -> list[int]:
    draw = np.random.default_rng(seed)
    return [int(token) for token in draw.integers(FIRST_WORD, VOCABULARY, length)]


def _expected(model: nn.Module, sequence: Sequence[int]) -> Logits:
    import torch

    with torch.inference_mode():
        logits: Logits = model(torch.tensor([sequence])).logits[0].float().numpy()
    return logits


def _served(backend: OnnxBackend, sequences: Sequence[Sequence[int]]) -> list[Logits]:
    """As the scheduler has it: prompts slice by slice into rows of the pool, then one step for all rows at a time."""
    from edgewright_agent.engine_worker.batching.pool import Pool

    pool = Pool(backend.layout, backend.pool_tokens, backend.context_tokens, backend.copy)
    rows = [pool.take(len(sequence), sequence, None) for sequence in sequences]
    places = [row.place for row in rows if row is not None]
    pieces: list[list[Logits]] = [[] for _ in sequences]
    for place, sequence, read in zip(places, sequences, pieces, strict=True):
        prompt = sequence[:-STEPS]
        for past in range(0, len(prompt), SLICE_TOKENS):
            logits = backend.read(place, past, prompt[past : past + SLICE_TOKENS], None)
            read.append(np.array(logits))
    for step in range(STEPS):
        pasts = [len(sequence) - STEPS + step for sequence in sequences]
        tokens = [sequence[past] for sequence, past in zip(sequences, pasts, strict=True)]
        for read, logits in zip(pieces, backend.step(places, pasts, tokens, None), strict=True):
            read.append(np.array(logits)[None])
    return [np.concatenate(read) for read in pieces]
