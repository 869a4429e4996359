"""How much of a text two tokenizations make comparable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgewright_builder.alignment.boundaries import Boundaries, Part, common_boundaries
from edgewright_builder.alignment.vocabulary import Vocabulary

MINIMUM = 0.25  # share of the student's tokens that must be T2's next tokens too


@dataclass(frozen=True)
class Share:
    """Counts over the student's tokens of a text."""

    tokens: int  # the student's that are learned
    compared: int  # of them, those that begin where a token of T2's begins too
    equal: int  # of them, those at which T2 goes on with a token of the same text
    folded: int  # compared ones at which T2 goes on with a token that the student does not have

    def __add__(self, other: Share) -> Share:
        return Share(
            self.tokens + other.tokens,
            self.compared + other.compared,
            self.equal + other.equal,
            self.folded + other.folded,
        )

    @property
    def compared_share(self) -> float:
        """The share of the student's tokens at which it is held against T2."""
        return self.compared / max(1, self.tokens)

    @property
    def equal_share(self) -> float:
        """The share of the student's tokens that T2 cuts in the same way."""
        return self.equal / max(1, self.tokens)

    @property
    def folded_share(self) -> float:
        """Of the compared tokens the share at which T2's next token counts only for the piece that it begins with."""
        return self.folded / max(1, self.compared)

    @property
    def lost_share(self) -> float:
        """An estimate of what T2 can't pass on: the share of tokens at which it says less than its whole next token."""
        return 1 - self.equal_share


def share_of(
    boundaries: Boundaries,
    student: tuple[Vocabulary, Sequence[int]],
    teacher: tuple[Vocabulary, Sequence[int]],
    tokens: int,
) -> Share:
    """Returns the share of one text; `student` and `teacher` are vocabulary and token ids."""
    own = student[0].written
    equal = folded = 0
    for ours, theirs in zip(boundaries.student, boundaries.teacher, strict=True):
        next_of = [_next(side, token) for side, token in ((student, ours), (teacher, theirs))]
        equal += next_of[0] == next_of[1]
        folded += next_of[1] is not None and next_of[1] not in own
    return Share(tokens, len(boundaries.student), equal, folded)


def _next(side: tuple[Vocabulary, Sequence[int]], token: int) -> bytes | None:
    """Returns the text of the token after `token`; None where that is a special one or there is none."""
    vocabulary, tokens = side
    return vocabulary.texts.get(tokens[token + 1]) if token + 1 < len(tokens) else None


def share_of_texts(student: Vocabulary, teacher: Vocabulary, texts: Iterable[str]) -> Share:
    """Returns how much of plain texts the two make comparable."""
    total = Share(0, 0, 0, 0)
    for text in texts:
        ours, theirs = student.encode(text), teacher.encode(text)
        parts = [Part(0, 0, len(text.encode()))]
        boundaries = common_boundaries(
            parts, student.token_ends(text, ours), teacher.token_ends(text, theirs)
        )
        within = boundaries.within(0, len(ours.ids) - 1)
        total += share_of(within, (student, ours.ids), (teacher, theirs.ids), max(0, len(ours.ids) - 1))
    return total


def vocabulary_share(student: Vocabulary, teacher: Vocabulary) -> float:
    """Returns the share of the student's tokens of text that are tokens of T2 too."""
    return len(student.written & teacher.written) / max(1, len(student.written))
