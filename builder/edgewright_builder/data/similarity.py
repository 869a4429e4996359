"""Near-duplicates by the Jaccard similarity of word n-grams, and overlap with evaluation files.

Exact, with an inverted index; at thousands of texts sketches such as MinHash would save nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from edgewright_builder.data.parsing import words

Shingles = frozenset[tuple[str, ...]]


def shingles(text: str, n: int) -> Shingles:
    """The text's word n-grams; a text of fewer than n words is one shingle of all its words."""
    tokens = words(text)
    if len(tokens) < n:
        return frozenset([tuple(tokens)]) if tokens else frozenset()
    return frozenset(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


class SeenTexts:
    """Texts kept so far; `add` refuses one whose similarity |a ∩ b| / |a ∪ b| to any of them reaches the threshold."""

    def __init__(self, threshold: float = 0.5, n: int = 2) -> None:
        self._threshold = threshold
        self._n = n
        self._sizes: list[int] = []
        self._index: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def add(self, text: str) -> bool:
        """Remembers the text and returns True, or returns False if it is a near-duplicate."""
        grams = shingles(text, self._n)
        shared = Counter(i for gram in grams for i in self._index[gram])
        for i, common in shared.items():
            if common >= self._threshold * (len(grams) + self._sizes[i] - common):
                return False
        for gram in grams:
            self._index[gram].append(len(self._sizes))
        self._sizes.append(len(grams))
        return True


class Contamination:
    """The n-grams of evaluation texts; a text that shares one is contaminated.

    A question shorter than n words counts only when it occurs whole. n = 8 as a middle between the 13-grams of GPT-3
    (arXiv 2005.14165, appendix C), too long for questions of 15 words, and runs every question has.
    """

    def __init__(self, texts: Iterable[str], n: int = 8) -> None:
        self._n = n
        self._grams: set[tuple[str, ...]] = set()
        for text in texts:
            self._grams |= shingles(text, n)

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and not self._grams.isdisjoint(shingles(text, self._n))
