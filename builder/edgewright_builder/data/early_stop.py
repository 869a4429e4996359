"""Stops a generation early: if none of T1's first answers at a step is of use, the rest would not be either."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from edgewright_builder.data.generation_settings import Assignment
from edgewright_builder.data.parsing import parse_answer, parse_question

FIRST_ANSWERS = 8  # fewer say little about a small model
SHOWN_CHARACTERS = 200


class FirstAnswers:
    """Counts the answers at each step until one of them is of use."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._useful: set[str] = set()
        self._values: dict[str, list[Any]] = defaultdict(list)
        self._first: dict[str, str] = {}

    def complaint(self, step: str, values: Sequence[Any], written: Sequence[str]) -> str:
        """Takes in a batch; returns what is wrong with all answers so far, empty while there is hope.

        `values` are as the journal holds them, `written` is what T1 wrote for each.
        """
        if step == "topics" or step in self._useful:
            return ""
        if not all(self._fault(step, value) for value in values):
            self._useful.add(step)
            return ""
        self._values[step] += values
        self._first.setdefault(step, _shown(written[0]))
        enough = len(self._values[step]) >= FIRST_ANSWERS
        return self._wording(step) if enough else ""

    def _fault(self, step: str, value: Any) -> str:
        if step == "questions":
            return self._assignment.question_fault(parse_question(value["text"]))
        if step == "answers":
            return self._assignment.answer_fault(parse_answer(value["text"]))
        return self._assignment.score_fault(value)

    def _wording(self, step: str) -> str:
        settings, count = self._assignment.settings, len(self._values[step])
        first = f"the first is {self._first[step]}"
        if step == "questions":
            least = settings.minimum_question_words
            return f"none of its first {count} texts is a question of {least} words or more; {first}"
        if step == "answers":
            least = settings.minimum_answer_words
            return f"none of its first {count} texts is a sentence of {least} words or more; {first}"
        scores = [value for value in self._values[step] if value is not None]
        if not scores:
            return f"none of its first {count} ratings names a score from 1 to 5; {first}"
        name = "minimum_relevance" if settings.critic == "relevance" else "minimum_score"
        best = f"of the first {count} pairs the best score is {max(scores):g}"
        return f"`data.{name}` is {settings.minimum:g}, and {best}"


def _shown(text: str) -> str:
    return repr(text[:SHOWN_CHARACTERS]) if text else "nothing"
