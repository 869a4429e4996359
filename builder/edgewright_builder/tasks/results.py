"""Runs a task on a scorer, and holds what came of it row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from edgewright_builder.scoring.scorer import ScoreItem, Scorer
from edgewright_builder.tasks.accuracy import AccuracyEstimate, Metric, accuracy, choose
from edgewright_builder.tasks.definitions import Choice, Question
from edgewright_builder.tasks.loading import Task

if TYPE_CHECKING:
    from edgewright_builder.run.progress import OnProgress

QUESTIONS_PER_CALL = 64


@dataclass(frozen=True)
class ScoredQuestion:
    """One row: the log-likelihood of each choice, and whether the right choice won, plain and per character."""

    id: str
    log_likelihoods: tuple[float, ...]
    acc: bool
    acc_norm: bool


@dataclass(frozen=True)
class TaskResult:
    """A model on a task, row by row, so that two models can be compared in pairs."""

    task: str
    metric: Metric
    outcomes: tuple[ScoredQuestion, ...]

    def correct(self, metric: Metric | None = None) -> list[bool]:
        """Returns per row whether it counts as right under the metric (the task's own by default)."""
        return [getattr(outcome, metric or self.metric) for outcome in self.outcomes]

    def accuracy(self, metric: Metric | None = None) -> AccuracyEstimate:
        """Returns the share of right rows, with its standard error."""
        return accuracy(self.correct(metric))


def run_task(scorer: Scorer, task: Task, *, on_progress: OnProgress) -> TaskResult:
    """Scores all questions of a task, `QUESTIONS_PER_CALL` at a time."""
    outcomes: list[ScoredQuestion] = []
    total = len(task.questions)
    for start in range(0, total, QUESTIONS_PER_CALL):
        chunk = task.questions[start : start + QUESTIONS_PER_CALL]
        groups = [_by_context(question.choices) for question in chunk]
        scores = iter(scorer.score([item for items in groups for item in items]))
        for question, items in zip(chunk, groups, strict=True):
            outcomes.append(_scored(question, [value for _ in items for value in next(scores)]))
        right = sum(getattr(outcome, task.metric) for outcome in outcomes)
        on_progress(len(outcomes), total, f"{task.name} {right / len(outcomes):.3f}")
    return TaskResult(task.name, task.metric, tuple(outcomes))


def _by_context(choices: Sequence[Choice]) -> list[ScoreItem]:
    """Joins neighbouring choices of one context into one item, so that a scorer reads the context once."""
    by_context: Callable[[Choice], str] = lambda choice: choice.context  # noqa: E731
    return [(context, [c.continuation for c in group]) for context, group in groupby(choices, by_context)]


def _scored(question: Question, log_likelihoods: list[float]) -> ScoredQuestion:
    lengths = [choice.characters for choice in question.choices]
    return ScoredQuestion(
        question.id,
        tuple(log_likelihoods),
        acc=choose(log_likelihoods) == question.answer,
        acc_norm=choose(log_likelihoods, lengths) == question.answer,
    )
