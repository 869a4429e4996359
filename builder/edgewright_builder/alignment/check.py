"""Whether a teacher fits a student, from the two tokenizers alone."""

from __future__ import annotations

from collections.abc import Iterator

from edgewright.errors import InputError
from edgewright_builder.alignment.share import Share, vocabulary_share
from edgewright_builder.alignment.vocabulary import Vocabulary


def share_lines(share: Share, student: Vocabulary, teacher: Vocabulary, of: str) -> Iterator[str]:
    """Yields the sentences that people read before anything is trained; `of` names the text."""
    yield (
        f"alignment: {vocabulary_share(student, teacher):.0%} of the student's tokens are tokens of T2; in {of} the "
        f"two cut {share.equal_share:.1%} of the tokens alike"
    )
    yield (
        f"alignment: {share.compared_share:.1%} of the student's tokens are held against T2, the others are learned "
        f"by cross-entropy alone; at {share.folded_share:.1%} of the former T2's next token counts for its first piece"
    )
    yield f"alignment: T2 says less than its whole next token at about {share.lost_share:.1%} of the tokens"


def require_aligned(share: Share, minimum: float) -> None:
    """Raises InputError where too few tokens align for T2 to teach anything."""
    if share.equal_share < minimum:
        raise InputError(
            f"Student and teacher cut {share.equal_share:.1%} of the tokens alike, expected are at least "
            f"{minimum:.0%}; choose another teacher, or lower `distillation.minimum_aligned`."
        )
