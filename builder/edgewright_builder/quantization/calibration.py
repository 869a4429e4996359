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
    """Token sequences that GPTQ may see: none of them is held out for validation."""

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
    if texts.tokens < TOKENS_MIN:
        raise InputError(
            f"GPTQ has {texts.tokens} tokens to calibrate on; at least {TOKENS_MIN} are needed, "
            f"{TOKENS_ADVISED:,} are advised. Give more pairs."
        )
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    general_tokens = _general_tokens(texts, tokens, general_share)
    pieces = [
        *_drawn(texts.pairs, tokens - general_tokens, rng),
        *_drawn(texts.general, general_tokens, rng),
    ]
    rng.shuffle(pieces)
    joined = [token for piece in pieces for token in piece]
    return [joined[start : start + sequence_tokens] for start in range(0, len(joined), sequence_tokens)]


def _general_tokens(texts: CalibrationTexts, tokens: int, general_share: float) -> int:
    """Returns how many tokens general text gives: its share, and what the pairs lack."""
    if general_share == 0:
        return 0
    lacking = tokens - sum(map(len, texts.pairs))
    available = sum(map(len, texts.general))
    return min(available, max(round(general_share * tokens), lacking))


def _drawn(sequences: Sequence[Sequence[int]], tokens: int, rng: random.Random) -> Iterable[list[int]]:
    """Yields sequences in a random order, the last one cut, until they have `tokens`."""
    for sequence in rng.sample(list(sequences), len(sequences)):
        if tokens <= 0:
            return
        piece = list(sequence[:tokens])
        tokens -= len(piece)
        yield piece
