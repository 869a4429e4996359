"""What a report calls the distance to the teacher: what was measured depends on how T2's knowledge is compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgewright_builder.report.records import StageRecord


@dataclass(frozen=True)
class TeacherComparison:
    """How the student was held against T2, as the stage `teacher` says."""

    alignment: str = "shared"  # or projected, or uld
    top_k: int | None = None  # of a served T2: the tokens that it names at each place

    @property
    def divergence(self) -> str:
        """The name of what is measured on held-out pairs. A build that trains by ULD measures projected KL too."""
        name = "KL" if self.alignment == "shared" else "projected KL"
        return name if self.top_k is None else f"top-{self.top_k} {name}"

    @property
    def title(self) -> str:
        """The same where a sentence begins."""
        return self.divergence[0].upper() + self.divergence[1:]

    @property
    def meaning(self) -> str:
        """A sentence on a divergence that is not the whole one; else empty."""
        sentences = []
        if self.top_k is not None:
            sentences.append(
                f"Top-{self.top_k}: of the {self.top_k} tokens that the served teacher names and one tail, so at most "
                "the whole KL."
            )
        if self.alignment != "shared":
            sentences.append(
                "Projected: the vocabularies differ, so both distributions are taken over the alphabet that they "
                "share, where both models have read the same text."
            )
        return " ".join(sentences)

    @property
    def loss(self) -> str:
        """The loss that is trained."""
        term = "ULD" if self.alignment == "uld" else f"T² {self.divergence}"
        return f"α {term} + (1 − α) CE"


def comparison_of(stages: Iterable[StageRecord]) -> TeacherComparison:
    """Returns how T2 was compared. A stage of an earlier version says only whether the vocabularies were aligned."""
    summary = next((stage.summary for stage in stages if stage.stage == "teacher"), {})
    alignment, top_k = summary.get("alignment"), summary.get("top_k")
    if alignment not in ("shared", "projected", "uld"):
        alignment = "projected" if "compared_share" in summary else "shared"
    return TeacherComparison(alignment, top_k if isinstance(top_k, int) else None)
