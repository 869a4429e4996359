"""The alphabet in which two vocabularies can be compared, from string rules alone.

Its letters are the texts that are tokens of both. Every token counts for one of them:

    a token of both             its own text
    a token of the student's    the letter of the first token that the teacher's tokenizer cuts its text into
    a token of the teacher's    the letter of the first token that the student's tokenizer cuts its text into
    what remains                one letter more, "other"

So a student's `201` counts for the teacher's `2`, and a teacher's `201` for the student's `2`. The first line and the
second are the sparse matrix W of X-Token's P-KL (arXiv 2605.21699). The third is ours: without it the teacher's
probability of a token that no row of W reaches would be compared with zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgewright_builder.alignment.vocabulary import Vocabulary


@dataclass(frozen=True)
class Projection:
    """The letter of each token of both vocabularies; `letters` − 1 is "other"."""

    student: tuple[int, ...]  # by the student's token ids
    teacher: tuple[int, ...]  # by the teacher's
    letters: int


@dataclass(frozen=True)
class Ends:
    """The tokens that end a turn or a text, of each model: they mean the same under different names."""

    student: frozenset[int]
    teacher: frozenset[int]


def project(student: Vocabulary, teacher: Vocabulary, ends: Ends, sizes: tuple[int, int]) -> Projection:
    """Returns the projection of two vocabularies whose heads have `sizes` (student's, teacher's) rows.

    Special tokens count for each other where their names are equal, or where both end a turn. Rows that no tokenizer
    names count for each other where their ids are equal: models of one family pad their heads alike.
    """
    letters = _Letters(student, teacher)
    joined = ends if _differ(student, teacher, ends) else Ends(frozenset(), frozenset())
    ours = _keys(student, teacher, sizes[0], letters, joined.student)
    theirs = _keys(teacher, student, sizes[1], letters, joined.teacher)
    in_both = set(theirs) - {None}
    number = {key: letter for letter, key in enumerate(key for key in dict.fromkeys(ours) if key in in_both)}
    other = len(number)
    rows = [tuple(number.get(key, other) for key in side) for side in (ours, theirs)]
    return Projection(rows[0], rows[1], other + 1)


def _differ(student: Vocabulary, teacher: Vocabulary, ends: Ends) -> bool:
    """Whether the two end their turns by different tokens, so that these must count for each other."""
    both = bool(ends.student) and bool(ends.teacher)
    return both and any(
        student.names.get(token) != teacher.names.get(token) for token in ends.student | ends.teacher
    )


Key = tuple[str, object]


def _keys(
    vocabulary: Vocabulary, other: Vocabulary, size: int, letters: _Letters, ends: frozenset[int]
) -> list[Key | None]:
    """Returns what decides each row's letter, such as the text it counts for; None for "other"."""
    special = {other.names[token] for token in other.special}

    def key(token: int) -> Key | None:
        name = vocabulary.names.get(token)
        if name is None:
            return None if token in other.names else ("row", token)
        if token in ends:
            return ("end", None)
        if token in vocabulary.special:
            return ("special", name) if name in special else None
        text = letters.of(vocabulary.texts[token])
        return None if text is None else ("text", text)

    return [key(token) for token in range(size)]


@dataclass
class _Letters:
    """The letter of every text that is a token of either vocabulary."""

    student: Vocabulary
    teacher: Vocabulary
    _letters: dict[bytes, bytes | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ours, theirs = self.student.written, self.teacher.written
        self._letters = {text: text for text in ours & theirs if text}
        first = _first(self.teacher, ours - theirs) | _first(self.student, theirs - ours)
        for text in sorted(first, key=len):  # a first piece is shorter, so its letter is known
            self._letters[text] = self._letters.get(first[text])

    def of(self, text: bytes) -> bytes | None:
        """Returns the shared text that `text` begins with, as the other tokenizer cuts it; None if there is none."""
        return self._letters.get(text)


def _first(tokenizer: Vocabulary, texts: Iterable[bytes]) -> dict[bytes, bytes]:
    """Returns text → the text of the first token that the tokenizer cuts it into.

    A text that can't be cut alone, such as half a character, begins with the longest token that it begins with.
    """
    wanted: Sequence[bytes] = sorted(text for text in texts if text)
    cut: Mapping[bytes, bytes | None] = dict(zip(wanted, tokenizer.first_piece(wanted), strict=True))
    return {text: piece for text in wanted if (piece := cut[text] or _longest(tokenizer.written, text))}


def _longest(pieces: frozenset[bytes], text: bytes) -> bytes | None:
    prefixes = (text[:length] for length in range(len(text) - 1, 0, -1))
    return next((prefix for prefix in prefixes if prefix in pieces), None)
