"""Near-duplicates by the Jaccard similarity of word n-grams, and overlap with evaluation files.

Both are exact, with an inverted index: at thousands of texts sketches such as MinHash would save nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from edgewright_builder.data.parsing import words

Shingles = frozenset[tuple[str, ...]]


def shingles(text: str, n: int) -> Shingles:
    """Returns the text's word n-grams; a text of fewer than n words is one shingle of all its words."""
    return _shingles(tuple(words(text)), n)


def _shingles(tokens: tuple[str, ...], n: int) -> Shingles:
    if len(tokens) < n:
        return frozenset([tokens]) if tokens else frozenset()
    return frozenset(tokens[i : i + n] for i in range(len(tokens) - n + 1))


class SeenTexts:
    """The texts kept so far. `add` refuses one whose similarity |a ∩ b| / |a ∪ b| to any reaches the threshold."""

    def __init__(self, threshold: float = 0.5, n: int = 2) -> None:
        self._threshold = threshold
        self._n = n
        self._sizes: list[int] = []
        self._index: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def add(self, text: str) -> bool:
        """Whether the text is no near-duplicate; if so it is remembered."""
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

    A question shorter than n words counts only when it occurs whole. n = 8 lies between the 13-grams of GPT-3 (arXiv
    2005.14165, appendix C), which are too long for questions of 15 words, and runs that every question has.
    """

    def __init__(self, texts: Iterable[str], n: int = 8) -> None:
        self._n = n
        self._wholes = {tuple(words(text)) for text in texts} - {()}
        counts = Counter(gram for whole in self._wholes for gram in _shingles(whole, n))
        self._grams = set(counts)
        self._common = {gram for gram, count in counts.items() if count > 1}
        self._own = {gram for whole in self._wholes for gram in self._distinctive(whole)}

    def __contains__(self, text: object) -> bool:
        """Whether the text shares an n-gram with any evaluation text: the measure for generated questions."""
        return isinstance(text, str) and not self._grams.isdisjoint(shingles(text, self._n))

    def holds(self, text: str) -> bool:
        """Whether the text is one of the evaluation's, or shares an n-gram with it beside what many of its texts share.

        The measure for a user's own rows: an instruction that data and evaluation share word by word is in many
        evaluation texts and says nothing about a row.
        """
        tokens = tuple(words(text))
        if self._common.isdisjoint(_shingles(tokens, self._n)):
            return not self._grams.isdisjoint(_shingles(tokens, self._n))
        return tokens in self._wholes or not self._own.isdisjoint(self._distinctive(tokens))

    def _distinctive(self, tokens: tuple[str, ...]) -> Shingles:
        """Returns the n-grams of what is left of a text without the n-grams that several evaluation texts have."""
        common = [False] * len(tokens)
        for i in range(len(tokens) - self._n + 1):
            if tokens[i : i + self._n] in self._common:
                common[i : i + self._n] = [True] * self._n
        stretches = [
            tuple(token for _, token in stretch)
            for is_common, stretch in groupby(zip(common, tokens, strict=True), key=itemgetter(0))
            if not is_common
        ]
        return frozenset(gram for stretch in stretches for gram in _shingles(stretch, self._n))
