"""Heads as ONNX Runtime wants them: GroupQueryAttention takes sizes that are multiples of 16 only.

A head of another size, or one that positions turn in part, is laid out wider. The turned elements keep their partners
half a head apart, the others fill what is left, zeros the rest. Zeros add nothing to a product of queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgewright_builder.fit.memory import padded_head_dim

HALF_MULTIPLE = 8  # of the pairs that positions turn


@dataclass(frozen=True)
class HeadLayout:
    """Where each element of a head goes."""

    head_dim: int
    rotary_dim: int

    @property
    def stored_dim(self) -> int:
        """Elements of a head as the graph computes and caches it."""
        return padded_head_dim(self.head_dim, 16)

    @property
    def changes(self) -> bool:
        """Whether the graph has to lay heads out anew."""
        return self.stored_dim != self.head_dim or self.rotary_dim // 2 % HALF_MULTIPLE != 0

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """The place in the stored head of each element."""
        half, stored_half = self.rotary_dim // 2, self.stored_dim // 2
        turned = [*range(half), *range(stored_half, stored_half + half)]
        free = (place for place in range(self.stored_dim) if place not in set(turned))
        return (*turned, *(next(free) for _ in range(self.head_dim - self.rotary_dim)))

    def widening(self, heads: int) -> NDArray[np.int64]:
        """Indices that lay `heads` heads out, to gather from their elements with one zero behind them."""
        zero = heads * self.head_dim
        indices = np.full((heads, self.stored_dim), zero, np.int64)
        indices[:, self.slots] = np.arange(zero).reshape(heads, self.head_dim)
        return indices.reshape(-1)

    def narrowing(self, heads: int) -> NDArray[np.int64]:
        """Indices that take the elements of `heads` heads back out of their stored form."""
        starts = np.arange(heads, dtype=np.int64)[:, None] * self.stored_dim
        indices: NDArray[np.int64] = starts + np.array(self.slots, np.int64)
        return indices.reshape(-1)

    def widened(self, table: NDArray[np.float32], filler: float) -> NDArray[np.float32]:
        """Returns a table of positions, (positions, rotary_dim / 2), for stored heads; what is not turned gets
        `filler`.
        """
        missing = self.stored_dim // 2 - table.shape[1] if self.changes else 0
        return np.pad(table, ((0, 0), (0, missing)), constant_values=filler)
