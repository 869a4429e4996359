"""Where a task's rows come from: a folder of files, a file of one's own, or the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgewright.digests import file_sha256
from edgewright.errors import InputError
from edgewright_builder.data.alpaca import read_jsonl
from edgewright_builder.tasks.accuracy import Metric
from edgewright_builder.tasks.definitions import DEFINITIONS, QUIZ, Definition, Question
from edgewright_builder.tasks.harness import harness_questions


@dataclass(frozen=True)
class Task:
    """A named list of questions. `metric` is the primary one; both are always measured."""

    name: str
    metric: Metric
    questions: tuple[Question, ...]
    source: str

    def digest(self) -> str:
        """Returns the SHA-256 of what is asked, in order, in hex."""
        text = json.dumps([self.name, [asdict(question) for question in self.questions]], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_task(
    name: str, benchmarks: Path | None = None, limit: int | None = None, quiz: Definition = QUIZ
) -> Task:
    """Returns the first `limit` questions of a task.

    `name` is one of the paper's eight (rows from `benchmarks/<name>/eval.jsonl`, or from the hub without a folder), or
    the path of a JSONL file with `question`, `choices` and `answer` (0-based) a line, asked as `quiz` says. Raises
    InputError for an unknown name or a bad row, OutsideError if the hub does not answer.
    """
    if limit is not None and limit < 1:
        raise InputError(f"The limit of rows is {limit}; it must be at least 1.")
    if name.endswith(".jsonl"):
        return _from_file(Path(name), Path(name).stem, quiz, limit)
    definition = DEFINITIONS.get(name)
    if definition is None:
        known = ", ".join(DEFINITIONS)
        raise InputError(f"Unknown task {name!r}: expected one of {known}, or the path of a .jsonl file.")
    if benchmarks is None:
        questions = tuple(islice(harness_questions(definition.harness_name), limit))
        return Task(name, definition.metric, questions, "lm-evaluation-harness")
    return _from_file(benchmarks / name / "eval.jsonl", name, definition, limit)


def require_distinct(names: Sequence[str]) -> None:
    """Raises InputError for two tasks of one name: the results of one would replace those of the other.

    A file's name is its own without its folder and ending.
    """
    seen: dict[str, str] = {}
    for name in names:
        short = Path(name).stem if name.endswith(".jsonl") else name
        if (other := seen.get(short)) is not None:
            raise InputError(
                f"The tasks {other} and {name} are both called {short}, and each needs a name of its own: rename one, "
                "or leave one out."
            )
        seen[short] = name


def task_identity(name: str, benchmarks: Path | None) -> list[str]:
    """Returns what decides a task's rows: its name with its file's digest, or with "hub" where they come from there."""
    file = Path(name) if name.endswith(".jsonl") else benchmarks / name / "eval.jsonl" if benchmarks else None
    return [Path(name).name, file_sha256(file) if file is not None and file.is_file() else "hub"]


def evaluation_texts(benchmarks: Path) -> list[str]:
    """Returns the question of every row of every `<task>/eval.jsonl` in the folder: no training row may repeat one."""
    texts = []
    for path in sorted(benchmarks.glob("*/eval.jsonl")):
        for _, row in read_jsonl(path):
            texts.append(" ".join(str(row.get(name, "")) for name in ("context", "question")).strip())
    return texts


def _from_file(path: Path, name: str, definition: Definition, limit: int | None) -> Task:
    if not path.is_file():
        raise InputError(
            f"Task {name}: there is no file {path}. Give its path, or the folder that holds TASK/eval.jsonl."
        )
    questions = tuple(
        _question(f"{path}, line {number}", number, row, definition)
        for number, row in islice(read_jsonl(path), limit)
    )
    if not questions:
        raise InputError(f"Task {name}: {path} holds no rows; write one question a line.")
    return Task(name, definition.metric, questions, str(path))


def _question(where: str, number: int, row: dict[str, Any], definition: Definition) -> Question:
    question, choices, answer = row.get("question"), row.get("choices"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: expected a text in 'question', found {question!r}.")
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(c, str) and c for c in choices)
    ):
        raise InputError(f"{where}: expected a list of two or more texts in 'choices', found {choices!r}.")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise InputError(
            f"{where}: expected a number from 0 to {len(choices) - 1} in 'answer', found {answer!r}."
        )
    try:
        return Question(str(row.get("id", number)), definition.build(row), answer)
    except KeyError as error:
        raise InputError(f"{where}: task {definition.name} needs the field {error.args[0]!r}.") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
