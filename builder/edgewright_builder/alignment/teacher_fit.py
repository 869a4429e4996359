"""Whether a teacher fits a student, from the two tokenizers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import InputError
from edgewright_builder.alignment.comparable_share import MINIMUM, Share, share_of_texts, vocabulary_share
from edgewright_builder.alignment.vocabulary import Vocabulary, read_vocabulary
from edgewright_builder.data.general_text import general_passages
from edgewright_builder.show.sheet import Facts, Lines, Sheet, shown


@shown
@dataclass(frozen=True)
class TeacherCheck:
    """How well a student can be held against a teacher; shares are of the shipped general text."""

    teacher: str
    student: str
    shared_vocabulary: bool  # both name every token alike, so that nothing needs to be aligned
    vocabulary_share: float  # of the student's tokens, those that are tokens of the teacher too
    compared_share: float  # of the text's tokens, those at which the two are held against each other
    equal_share: float  # of the text's tokens, those that both cut alike
    folded_share: (
        float  # of the compared ones, those at which the teacher's next token counts for its first piece
    )
    lost_share: (
        float  # estimate: the share of tokens at which the teacher says less than its whole next token
    )
    minimum: float  # equal_share below it is refused
    fits: bool

    def _sheet(self) -> Sheet:
        rows = [
            ("vocabulary", "shared" if self.shared_vocabulary else "aligned by projected KL"),
            ("the student's tokens that the teacher has", f"{self.vocabulary_share:.1%}"),
            ("tokens of general text that both cut alike", f"{self.equal_share:.1%}"),
            ("tokens held against the teacher", f"{self.compared_share:.1%}"),
            ("of them, where its next token counts for its first piece", f"{self.folded_share:.1%}"),
            ("tokens at which it says less than its whole next token", f"about {self.lost_share:.1%}"),
        ]
        verdict = f"The build takes at least {self.minimum:.0%} that both cut alike: " + (
            "this teacher fits." if self.fits else "choose another teacher."
        )
        return Sheet((Facts(f"{self.teacher} → {self.student}", rows), Lines([verdict])))


def check_folders(
    teacher: Path, student: Path, names: tuple[str, str], minimum: float = MINIMUM
) -> TeacherCheck:
    """Returns how the tokenizers in two folders fit; `names` are those of teacher and student. Raises InputError."""
    ours, theirs = read_vocabulary(student), read_vocabulary(teacher)
    share = share_of_texts(ours, theirs, general_passages())
    return TeacherCheck(
        *names,
        shared_vocabulary=ours.names == theirs.names,
        vocabulary_share=vocabulary_share(ours, theirs),
        compared_share=share.compared_share,
        equal_share=share.equal_share,
        folded_share=share.folded_share,
        lost_share=share.lost_share,
        minimum=minimum,
        fits=share.equal_share >= minimum,
    )


def share_lines(share: Share, student: Vocabulary, teacher: Vocabulary) -> Iterator[str]:
    """Yields the sentences on the data that people read before anything is trained."""
    yield (
        f"alignment: {vocabulary_share(student, teacher):.0%} of the student's tokens are tokens of T2; both cut "
        f"{share.equal_share:.1%} of the data's tokens alike"
    )
    yield (
        f"alignment: {share.compared_share:.1%} of the data's tokens are held against T2, the others are learned by "
        f"cross-entropy alone; at {share.folded_share:.1%} of the former T2's next token counts for its first piece"
    )
    yield f"alignment: T2 says less than its whole next token at about {share.lost_share:.1%} of the tokens"


def require_aligned(share: Share, minimum: float) -> None:
    """Raises InputError where too few tokens align for T2 to teach anything."""
    if share.equal_share < minimum:
        raise InputError(
            f"Student and teacher cut {share.equal_share:.1%} of the tokens alike, expected are at least "
            f"{minimum:.0%}; choose another teacher, or lower `distillation.minimum_aligned`."
        )
