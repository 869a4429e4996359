"""The paper's eight tasks, zero-shot, with the prompts of lm-evaluation-harness 0.4.13.

Each function turns one row of an evaluation file (`id`, `question`, `choices`, `answer`, and what the task adds) into a
`Question`. A test renders the harness's own templates and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from edgewright.errors import InputError
from edgewright_builder.tasks.accuracy import Metric

QuizForm = Literal["plain", "chat"]  # how a user's own file is asked


@dataclass(frozen=True)
class Choice:
    """One choice as text to score: log p(continuation | context). `characters` normalise it for acc_norm, which
    the harness divides by the choice's length as text, whatever bytes that takes.
    """

    context: str
    continuation: str
    characters: int


@dataclass(frozen=True)
class Question:
    """A row ready to score; `answer` is the index of the right choice."""

    id: str
    choices: tuple[Choice, ...]
    answer: int


@dataclass(frozen=True)
class Definition:
    """How a task asks. `metric` is what papers report: acc_norm where the harness offers it, else acc.

    The source paper marks these tasks with * in its tables (arXiv 2601.09865, table 3).
    """

    name: str
    harness_name: str
    metric: Metric
    build: Callable[[dict[str, Any]], tuple[Choice, ...]]


def _choices(context: str, texts: list[str]) -> tuple[Choice, ...]:
    return tuple(Choice(context, f" {text}", len(text)) for text in texts)


def _lettered(row: dict[str, Any]) -> tuple[str, list[str]]:
    """Returns the question with its choices listed A, B, C …; the model is to name the letter.

    Raises InputError for more choices than letters.
    """
    letters = list(ascii_uppercase[: len(row["choices"])])
    if len(letters) < len(row["choices"]):
        raise InputError(
            f"{len(row['choices'])} choices are listed by letter, and A to Z name {len(letters)} at most; remove "
            "choices from the row."
        )
    listed = "".join(f"\n{letter}. {text}" for letter, text in zip(letters, row["choices"], strict=True))
    return f"{row['question'].strip()}{listed}\nAnswer:", letters


def _arc_easy(row: dict[str, Any]) -> tuple[Choice, ...]:
    return _choices(f"Question: {row['question']}\nAnswer:", row["choices"])


def _commonsense_qa(row: dict[str, Any]) -> tuple[Choice, ...]:
    context, letters = _lettered(row)
    return _choices(f"Question: {context}", letters)


def _hellaswag(row: dict[str, Any]) -> tuple[Choice, ...]:
    return _choices(row["question"], row["choices"])


def _mmlu(row: dict[str, Any]) -> tuple[Choice, ...]:
    context, letters = _lettered(row)
    subject = row["subject"].replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    return _choices(head + context, letters)


def _social_i_qa(row: dict[str, Any]) -> tuple[Choice, ...]:
    return _choices(f"Q: {row['context']} {row['question']}\nA:", row["choices"])


def _winogrande(row: dict[str, Any]) -> tuple[Choice, ...]:
    """Scores the end of the sentence given each way to fill the gap (Trinh and Le, arXiv 1806.02847)."""
    before, _, after = row["question"].partition("_")
    contexts = [before + option for option in row["choices"]]
    return tuple(Choice(context, f" {after.strip()}", len(context)) for context in contexts)


DEFINITIONS = {
    definition.name: definition
    for definition in (
        Definition("arc_easy", "arc_easy", "acc_norm", _arc_easy),
        Definition("commonsense_qa", "commonsense_qa", "acc", _commonsense_qa),
        Definition("hellaswag", "hellaswag", "acc_norm", _hellaswag),
        Definition("mmlu", "mmlu", "acc", _mmlu),
        Definition("openbookqa", "openbookqa", "acc_norm", _hellaswag),
        Definition("piqa", "piqa", "acc_norm", _arc_easy),
        Definition("social_i_qa", "social_iqa", "acc", _social_i_qa),
        Definition("winogrande", "winogrande", "acc", _winogrande),
    )
}
QUIZ = Definition("quiz", "", "acc_norm", _arc_easy)  # a user's own file, asked as ARC asks


def chat_quiz(prompt_of: Callable[[str], str]) -> Definition:
    """Returns how a user's own file is asked as a chat: `prompt_of` a question is what precedes the answer.

    The most likely choice counts, not the likeliest by character: it is the one that greedy decoding would say.
    """

    def build(row: dict[str, Any]) -> tuple[Choice, ...]:
        context = prompt_of(row["question"])
        return tuple(Choice(context, text, len(text)) for text in row["choices"])

    return Definition("quiz", "", "acc", build)
