"""What T1 is to write, and by which checks its answers are dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgewright_builder.data.data_teacher import TeacherSampling
from edgewright_builder.data.parsing import repeats_itself, words
from edgewright_builder.data.presets import Preset
from edgewright_builder.data.prompts import Prompts
from edgewright_builder.data.similarity import Contamination

# What may become of a question, in the order of the checks. Their counts add up to `generated`.
ATTRITION = (
    "question_unparseable",
    "question_too_short",
    "question_repetitive",
    "contaminated",
    "duplicate",
    "answer_unparseable",
    "answer_too_short",
    "answer_repetitive",
    "unrated",
    "below_minimum_score",
    "surplus",
    "kept",
)


@dataclass(frozen=True)
class GenerationSettings:
    """How much data, and what is good enough."""

    pairs: int = 600  # arXiv 2601.09865, section 3.1
    seed: int = 0
    batch_size: int = 32
    sampling: TeacherSampling = field(default_factory=TeacherSampling)
    # "rubric": T1 reads the pair with a rubric and scores it from 1 to 5. "relevance": how much the question raises the
    # answer's log-likelihood, for a local T1 too small to judge. On 64 questions of ARC-Easy's training split
    # SmolLM2-135M's rubric scores told right from shuffled answers no better than a coin (AUC 0.47 to 0.55 by wording),
    # its relevance did (AUC 0.91; right from wrong choices 0.61).
    critic: Literal["rubric", "relevance"] = "rubric"
    minimum_score: float = 3.0  # of 5
    minimum_relevance: float = 0.2  # nats per token
    duplicate_threshold: float = 0.5  # Jaccard similarity of word 2-grams
    minimum_question_words: int = 4
    minimum_answer_words: int = 3
    question_tokens: int = 48
    answer_tokens: int = 80
    maximum_rounds: int = 6

    @property
    def minimum(self) -> float:
        """What the critic's score must reach."""
        return self.minimum_relevance if self.critic == "relevance" else self.minimum_score


@dataclass(frozen=True)
class Assignment:
    """The subject, the prompts, how much and how good, and what must not be repeated."""

    preset: Preset
    prompts: Prompts
    settings: GenerationSettings
    contamination: Contamination

    def question_fault(self, question: str | None) -> str:
        """Returns what is wrong with a question, as `ATTRITION` names it; empty if nothing is."""
        if question is None:
            return "question_unparseable"
        if len(words(question)) < self.settings.minimum_question_words:
            return "question_too_short"
        if repeats_itself(question):
            return "question_repetitive"
        return "contaminated" if question in self.contamination else ""

    def answer_fault(self, answer: str | None) -> str:
        """Returns what is wrong with an answer, as `ATTRITION` names it; empty if nothing is."""
        if answer is None:
            return "answer_unparseable"
        if len(words(answer)) < self.settings.minimum_answer_words:
            return "answer_too_short"
        return "answer_repetitive" if repeats_itself(answer) else ""

    def score_fault(self, score: float | None) -> str:
        """Returns what is wrong with a critic's score, as `ATTRITION` names it; empty if nothing is."""
        if score is None:
            return "unrated"
        return "below_minimum_score" if score < self.settings.minimum else ""


@dataclass(frozen=True)
class Pair:
    """A question with its answer, where it came from and what T1 thought of it."""

    phrase: str
    topic: str
    question: str
    answer: str
    score: float
