"""Where two models that read the same text in their own tokens and templates can be compared.

After equal text both have a distribution over what comes next. Such a place is a boundary of both tokenizations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A run of equal bytes in two renderings of one dialogue."""

    student: int  # where it begins, in bytes
    teacher: int
    length: int


@dataclass(frozen=True)
class Boundaries:
    """Common boundaries in order: after token `student[i]` and token `teacher[i]` both models have read the same."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]

    def within(self, first: int, end: int) -> Boundaries:
        """Returns those after the student's tokens [first, end)."""
        kept = [i for i, token in enumerate(self.student) if first <= token < end]
        return Boundaries(tuple(self.student[i] for i in kept), tuple(self.teacher[i] for i in kept))


def equal_parts(ours: bytes, theirs: bytes, contents: Sequence[bytes], after: tuple[int, int]) -> list[Part]:
    """Returns the parts of two renderings that both took from `contents`, in order.

    The last content is the answer, which is looked for from `after` on.

    What a template writes between two parts belongs to them where both wrote the same, so that equal renderings are
    one part.
    """
    parts: list[Part] = []
    position = place = 0
    for number, content in enumerate(contents, 1):
        if number == len(contents):
            position, place = max(position, after[0]), max(place, after[1])
        start, other = ours.find(content, position), theirs.find(content, place)
        if content and start >= 0 and other >= 0:
            parts.append(Part(start, other, len(content)))
            position, place = start + len(content), other + len(content)
    return _joined(parts, ours, theirs)


def _joined(parts: Sequence[Part], ours: bytes, theirs: bytes) -> list[Part]:
    whole: list[Part] = []
    edges = [Part(0, 0, 0), *parts, Part(len(ours), len(theirs), 0)]
    for part in edges:
        last = whole[-1] if whole else part
        gap = (
            ours[last.student + last.length : part.student],
            theirs[last.teacher + last.length : part.teacher],
        )
        if whole and gap[0] == gap[1]:
            whole[-1] = Part(last.student, last.teacher, part.student + part.length - last.student)
        else:
            whole.append(part)
    return [part for part in whole if part.length]


def common_boundaries(
    parts: Sequence[Part], ours: Sequence[int | None], theirs: Sequence[int | None]
) -> Boundaries:
    """Returns the boundaries that both tokenizations have within the parts, their borders included.

    ours, theirs: the byte at which each token ends; None for one that ends inside a character.
    """
    teacher = {end: token for token, end in enumerate(theirs) if end is not None}
    pairs: dict[int, tuple[int, int]] = {}  # by the student's byte: of tokens that end at one place the last
    for token, end in enumerate(ours):
        if end is None:
            continue
        for part in parts:
            other = teacher.get(end - part.student + part.teacher)
            if part.student <= end <= part.student + part.length and other is not None:
                pairs[end] = (token, other)
    ordered = sorted(pairs.values())
    return Boundaries(tuple(token for token, _ in ordered), tuple(token for _, token in ordered))
