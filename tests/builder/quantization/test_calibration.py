"""What GPTQ calibrates on: tokens are counted, packed and shared between pairs and general text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import InputError
from edgewright_builder.quantization.calibration import (
    CalibrationTexts,
    packed_calibration,
    random_tokens_like,
    sampled_calibration,
)

PAIRS = [[1] * length for length in (20, 31, 47, 52, 60, 90)]  # 300 tokens
GENERAL = [[2] * length for length in (80, 120, 200)]  # 400 tokens
TEXTS = CalibrationTexts(PAIRS, GENERAL)


def counts(sequences: list[list[int]]) -> tuple[int, int]:
    """Tokens of the pairs and of general text."""
    joined = [token for sequence in sequences for token in sequence]
    return joined.count(1), joined.count(2)


@given(st.integers(32, 900), st.floats(0, 1), st.integers(16, 256), st.integers(0, 5))
def test_every_sequence_but_the_last_is_full_and_no_more_tokens_than_asked_for_are_used(
    tokens: int, share: float, length: int, seed: int
) -> None:
    sequences = packed_calibration(TEXTS, tokens, share, length, seed)
    assert all(len(sequence) == length for sequence in sequences[:-1])
    assert 0 < len(sequences[-1]) <= length
    assert sum(map(len, sequences)) <= tokens
    assert sequences == packed_calibration(TEXTS, tokens, share, length, seed)


@pytest.mark.parametrize(
    ("tokens", "share", "expected"),
    [
        (200, 0.5, (100, 100)),
        (200, 0.0, (200, 0)),
        (200, 1.0, (0, 200)),
        (600, 0.5, (300, 300)),
        (650, 0.25, (300, 350)),  # general text fills up what the pairs lack
        (900, 0.5, (300, 400)),  # all there is
        (900, 0.0, (300, 0)),  # general text was not asked for
    ],
)
def test_tokens_are_shared_as_asked_and_one_kind_fills_up_for_the_other(
    tokens: int, share: float, expected: tuple[int, int]
) -> None:
    assert counts(packed_calibration(TEXTS, tokens, share, 64, seed=0)) == expected


def test_too_little_text_says_how_much_there_is_and_what_is_advised() -> None:
    with pytest.raises(
        InputError, match=r"There are 7 tokens to calibrate on; at least 32 are needed, 4,096 are advised"
    ):
        packed_calibration(CalibrationTexts([[1] * 7], []), 512, 0.5, 64, seed=0)


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [
        (4, 0.0, (4, 0)),
        (4, 0.5, (2, 2)),
        (4, 1.0, (1, 3)),  # there are three passages; a pair fills up
        (8, 0.25, (6, 2)),
        (99, 0.5, (6, 3)),  # all there is
        (99, 0.0, (6, 0)),
    ],
)
def test_samples_are_taken_whole_and_shared_as_asked(
    samples: int, share: float, expected: tuple[int, int]
) -> None:
    marked = CalibrationTexts(
        [[10 + place] * len(pair) for place, pair in enumerate(PAIRS)],
        [[20 + place] * len(passage) for place, passage in enumerate(GENERAL)],
    )
    sequences = sampled_calibration(marked, samples, share, 64, seed=0)
    joined = [token for sequence in sequences for token in sequence]
    pairs, general = {token for token in joined if token < 20}, {token for token in joined if token >= 20}
    assert (len(pairs), len(general)) == expected
    assert all(joined.count(token) == len(PAIRS[token - 10]) for token in pairs)
    assert all(joined.count(token) == len(GENERAL[token - 20]) for token in general)
    assert all(len(sequence) == 64 for sequence in sequences[:-1])


def test_random_tokens_have_the_lengths_of_the_text_and_come_from_the_whole_vocabulary() -> None:
    sequences = packed_calibration(TEXTS, 300, 0.5, 64, seed=0)
    drawn = random_tokens_like(sequences, range(5, 15), seed=0)
    assert [len(sequence) for sequence in drawn] == [len(sequence) for sequence in sequences]
    assert {token for sequence in drawn for token in sequence} == set(range(5, 15))
    assert drawn == random_tokens_like(sequences, range(5, 15), seed=0)
    assert drawn != random_tokens_like(sequences, range(5, 15), seed=1)
