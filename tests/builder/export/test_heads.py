"""Heads that ONNX Runtime does not take are laid out wider, and what attention computes stays the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgewright_builder.export.heads import HeadLayout

SIZES = [(100, 100), (24, 24), (50, 50), (8, 8), (32, 24), (96, 72), (128, 40), (66, 20)]


def turned(
    head: NDArray[np.float32], cos: NDArray[np.float32], sin: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Rotary positions of the first 2·len(cos) elements, halves against halves (Su et al., arXiv 2104.09864)."""
    half = len(cos)
    a, b, rest = head[:half], head[half : 2 * half], head[2 * half :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest])


@pytest.mark.parametrize(("head_dim", "rotary_dim"), SIZES)
def test_scores_of_wider_heads_equal_those_of_the_heads(head_dim: int, rotary_dim: int) -> None:
    layout = HeadLayout(head_dim, rotary_dim)
    draw = np.random.default_rng(0)
    query, key = draw.standard_normal((2, head_dim)).astype(np.float32)
    angles = draw.standard_normal((2, rotary_dim // 2)).astype(np.float32)
    plain = [turned(head, np.cos(a), np.sin(a)) for head, a in zip((query, key), angles, strict=True)]
    wide = []
    for head, a in zip((query, key), angles, strict=True):
        stored = np.append(head, np.float32(0))[layout.widening(1)]
        cos, sin = layout.widened(np.cos(a)[None], 1.0)[0], layout.widened(np.sin(a)[None], 0.0)[0]
        wide.append(turned(stored, cos, sin))
    assert np.dot(*wide) == pytest.approx(np.dot(*plain), abs=1e-5)


@pytest.mark.parametrize(("head_dim", "rotary_dim"), SIZES)
def test_what_is_widened_comes_back_in_order(head_dim: int, rotary_dim: int) -> None:
    layout, heads = HeadLayout(head_dim, rotary_dim), 3
    row = np.arange(1, heads * head_dim + 1)
    stored = np.append(row, 0)[layout.widening(heads)]
    assert len(stored) == heads * layout.stored_dim
    assert (stored[layout.narrowing(heads)] == row).all()


def test_sizes_that_the_runtime_takes_are_left_as_they_are() -> None:
    assert not any(HeadLayout(size, size).changes for size in (16, 64, 80, 96, 128, 256))
    assert not HeadLayout(128, 96).changes  # three quarters of a head turn: 48 pairs
    assert HeadLayout(100, 100).stored_dim == 112
