"""The same tasks through lm-evaluation-harness: its definitions, and the rows from the hub."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from edgewright.errors import InputError, OutsideError
from edgewright_builder.tasks.definitions import Choice, Question


def harness_questions(name: str) -> Iterator[Question]:
    """Returns the questions of a harness task or group of tasks, zero-shot, in the harness's order.

    Raises InputError if the harness is not installed, OutsideError if the task's rows cannot be had.
    """
    try:
        tasks = importlib.import_module("lm_eval.tasks")
    except ImportError as error:
        raise InputError(
            f"Task {name} from the hub needs lm-evaluation-harness: pip install 'edgewright[harness]',"
            " or give a folder of files with --benchmarks."
        ) from error
    try:
        loaded = tasks.TaskManager().load([name])["tasks"]
    except Exception as error:  # the hub client and the harness raise many kinds, none of them shared
        first_line = str(error).strip().split("\n")[0]
        raise OutsideError(
            f"Task {name} could not be loaded from the hub ({type(error).__name__}: {first_line});"
            " check the network, or give a folder of TASK/eval.jsonl with --benchmarks."
        ) from error
    return (question for task in loaded.values() for question in _questions(task))


def _questions(task: Any) -> Iterator[Question]:
    docs = task.test_docs() if task.has_test_docs() else task.validation_docs()
    for number, doc in enumerate(docs):
        yield build_question(task, doc, number)


def build_question(task: Any, doc: dict[str, Any], number: int) -> Question:
    """Returns one document as the harness would ask it."""
    context = task.fewshot_context(doc, num_fewshot=0)
    instances = task.construct_requests(doc=doc, ctx=context)
    texts = task.doc_to_choice(doc)
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    choices = tuple(
        Choice(instance.args[0], instance.args[1], len(text))
        for instance, text in zip(instances, texts, strict=True)
    )
    return Question(
        f"{task.config.task}/{number}", choices, texts.index(gold) if isinstance(gold, str) else int(gold)
    )
