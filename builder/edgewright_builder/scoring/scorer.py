"""What scores text: a model on this machine (`local.py`) or on a board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

ScoreItem = tuple[str, Sequence[str]]  # a context and its continuations


class Scorer(Protocol):
    """A model that gives log-likelihoods."""

    def score(self, items: Sequence[ScoreItem]) -> list[list[float]]:
        """Returns log p(continuation | context), natural, summed over tokens, per item and continuation."""
