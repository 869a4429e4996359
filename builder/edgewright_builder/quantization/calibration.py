"""What GPTQ calibrates on: so many tokens of the task's pairs and of general text, packed into full sequences.

A Hessian is a sum over tokens, so tokens are what is counted. Short pairs are joined end to end: every sequence then
has the length that the model serves at, and none is padded.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgewright.errors import InputError

TOKENS_MIN = 32  # fewer say nothing about the inputs of a layer
TOKENS_ADVISED = 4096  # below, the divergence from the 16-bit model rises fast (docs/quantization.md)


@dataclass(frozen=True)
class CalibrationTexts:
    """Token sequences to calibrate on: none of them is held out for validation."""

    pairs: Sequence[Sequence[int]]
    general: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        """How many there are of both kinds."""
        return sum(map(len, self.pairs)) + sum(map(len, self.general))


def packed_calibration(
    texts: CalibrationTexts, tokens: int, general_share: float, sequence_tokens: int, seed: int
) -> list[list[int]]:
    """Returns sequences of `sequence_tokens`, the last one maybe shorter, of `tokens` in all or of what there is.

    `general_share` of the tokens come from general text; where one kind runs short, the other fills up. Raises
    InputError for fewer tokens than any Hessian can be made of.
    """
    _require_enough(texts)
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    available = sum(map(len, texts.pairs)), sum(map(len, texts.general))
    general = _general_part(tokens, general_share, *available)
    pieces = [*_drawn(texts.pairs, tokens - general, rng), *_drawn(texts.general, general, rng)]
    return _packed(pieces, sequence_tokens, rng)


def sampled_calibration(
    texts: CalibrationTexts, samples: int, general_share: float, sequence_tokens: int, seed: int
) -> list[list[int]]:
    """Returns the same of so many whole samples, `general_share` of them passages of general text."""
    _require_enough(texts)
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    general = _general_part(samples, general_share, len(texts.pairs), len(texts.general))
    pairs = min(samples - general, len(texts.pairs))
    pieces = [*rng.sample(list(texts.pairs), pairs), *rng.sample(list(texts.general), general)]
    return _packed([list(piece) for piece in pieces], sequence_tokens, rng)


def random_tokens_like(
    sequences: Sequence[Sequence[int]], vocabulary: Sequence[int], seed: int
) -> list[list[int]]:
    """Returns sequences of the same lengths whose tokens are drawn evenly from the vocabulary."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    return [rng.choices(vocabulary, k=len(sequence)) for sequence in sequences]


def _require_enough(texts: CalibrationTexts) -> None:
    if texts.tokens < TOKENS_MIN:
        raise InputError(
            f"There are {texts.tokens} tokens to calibrate on; at least {TOKENS_MIN} are needed, "
            f"{TOKENS_ADVISED:,} are advised. Give more pairs."
        )


def _general_part(amount: int, general_share: float, pairs: int, general: int) -> int:
    """Returns how much of the amount general text gives: its share, and what the pairs lack."""
    if general_share == 0:
        return 0
    return min(general, max(round(general_share * amount), amount - pairs))


def _packed(pieces: list[list[int]], sequence_tokens: int, rng: random.Random) -> list[list[int]]:
    rng.shuffle(pieces)
    joined = [token for piece in pieces for token in piece]
    return [joined[start : start + sequence_tokens] for start in range(0, len(joined), sequence_tokens)]


def _drawn(sequences: Sequence[Sequence[int]], tokens: int, rng: random.Random) -> Iterable[list[int]]:
    """Yields sequences in a random order, the last one cut, until they have `tokens`."""
    for sequence in rng.sample(list(sequences), len(sequences)):
        if tokens <= 0:
            return
        piece = list(sequence[:tokens])
        tokens -= len(piece)
        yield piece
