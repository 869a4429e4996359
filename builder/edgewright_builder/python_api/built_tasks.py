"""The tasks of a build: the same rows in the same form, to ask them of a board."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import InputError

if TYPE_CHECKING:
    from edgewright_builder.tasks.loading import Task


@dataclass(frozen=True)
class BuiltTask:
    """A task, and which of its rows the model that the build ships got right on the host."""

    task: Task
    model: str  # exported, or an adapter's name for it
    right: tuple[bool, ...]


def built_tasks(run: Path) -> list[BuiltTask]:
    """Returns what the build in `run` was evaluated on.

    Raises InputError for a run without an evaluation, and where the rows are no longer those of the build.
    """
    try:
        results = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InputError(
            f"{run} holds no evaluation to compare with (evaluate/results.json); name the folder of a finished build, "
            "or give --tasks."
        ) from None
    try:
        return [_built_task(run, name, results) for name in results["tasks"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"The evaluation in {run / 'evaluate'} is damaged ({type(error).__name__}: {error}); delete it and "
            "build again with --resume."
        ) from None


def _built_task(run: Path, name: str, results: dict[str, Any]) -> BuiltTask:
    model, rows = results["models"][-1], results["tasks"][name]["rows"]
    stored = json.loads((run / "evaluate" / model / f"{name}.json").read_text(encoding="utf-8"))
    task = _load(run, name, stored["source"], rows, results.get("quiz", "plain"))
    if stored["fingerprint"].rsplit(":", 1)[-1] != task.digest():
        raise InputError(
            f"{stored['source']} no longer holds the rows that {run} was evaluated on; restore it, or build again."
        )
    return BuiltTask(task, model, tuple(outcome[stored["metric"]] for outcome in stored["outcomes"]))


def _load(run: Path, name: str, source: str, rows: int, form: Any) -> Task:
    from edgewright_builder.stages.evaluate import quiz_of
    from edgewright_builder.tasks.definitions import DEFINITIONS
    from edgewright_builder.tasks.loading import load_task

    file = Path(source)
    if (
        name in DEFINITIONS and file.name != f"{name}.jsonl"
    ):  # which is a file of one's own, called as a task is
        return load_task(name, file.parent.parent if file.suffix == ".jsonl" else None, rows)
    return load_task(source, limit=rows, quiz=quiz_of(form, run / "student" / "model"))
