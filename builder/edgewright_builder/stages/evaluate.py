"""Stage 8: several models on several tasks, row by row, so that models can be compared in pairs.

The folder then holds `<model>/<task>.json` for each pair and `results.json` over all. A finished pair is not run again
unless the model, the rows or the task changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgewright.durable import FileSystem, write_durably
from edgewright_builder.data.client import OnProgress
from edgewright_builder.scoring.scoring import Outcome, Scorer, TaskResult, run_task
from edgewright_builder.tasks.accuracy import paired_difference
from edgewright_builder.tasks.loading import Task


@dataclass(frozen=True)
class EvaluatedModel:
    """A model by name. `identity` changes when its weights do; `open` loads it, and is called only if needed."""

    name: str
    identity: str
    open: Callable[[], AbstractContextManager[Scorer]]


@dataclass(frozen=True)
class Evaluation:
    """Results by (model, task), and `summary`, which is what `results.json` holds."""

    results: dict[tuple[str, str], TaskResult]
    summary: dict[str, Any]


def evaluate(
    models: Sequence[EvaluatedModel], tasks: Sequence[Task], folder: Path, *, on_progress: OnProgress
) -> Evaluation:
    """Evaluates each model on each task; the first model is the baseline of the paired differences.

    Raises what opening and scoring a model raises; results finished before that stay.
    """
    results: dict[tuple[str, str], TaskResult] = {}
    for model in models:
        missing = []
        for task in tasks:
            found = _read(_path(folder, model, task), _fingerprint(model, task))
            if found is None:
                missing.append(task)
            else:
                results[model.name, task.name] = found
        if missing:
            with model.open() as scorer:
                for task in missing:
                    results[model.name, task.name] = _run(model, task, scorer, folder, on_progress)
    summary = _summary(models, tasks, results)
    _write(folder / "results.json", summary)
    return Evaluation(results, summary)


def _run(
    model: EvaluatedModel, task: Task, scorer: Scorer, folder: Path, on_progress: OnProgress
) -> TaskResult:
    def report(done: int, total: int, text: str) -> None:
        on_progress(done, total, f"{model.name}: {text}")

    result = run_task(scorer, task, on_progress=report)
    value = {"fingerprint": _fingerprint(model, task), "source": task.source, **asdict(result)}
    _write(_path(folder, model, task), value)
    return result


def _summary(
    models: Sequence[EvaluatedModel], tasks: Sequence[Task], results: dict[tuple[str, str], TaskResult]
) -> dict[str, Any]:
    return {
        "models": [model.name for model in models],
        "tasks": {
            task.name: {
                "metric": task.metric,
                "rows": len(task.questions),
                "source": task.source,
                "models": {
                    model.name: _model_summary(
                        results[models[0].name, task.name], results[model.name, task.name]
                    )
                    for model in models
                },
            }
            for task in tasks
        },
    }


def _model_summary(baseline: TaskResult, result: TaskResult) -> dict[str, Any]:
    """Both accuracies with their errors, and the paired difference to the baseline by the task's own metric."""
    value, error = paired_difference(baseline.correct(), result.correct())
    return {
        **{metric: asdict(result.accuracy(metric)) for metric in ("acc", "acc_norm")},
        "difference": {"value": value, "standard_error": error},
    }


def _fingerprint(model: EvaluatedModel, task: Task) -> str:
    return f"{model.identity}:{task.digest()}"


def _path(folder: Path, model: EvaluatedModel, task: Task) -> Path:
    return folder / model.name / f"{task.name}.json"


def _read(path: Path, fingerprint: str) -> TaskResult | None:
    """The stored result, None if there is none of this fingerprint."""
    if not path.exists():
        return None
    value = json.loads(path.read_bytes())
    if value["fingerprint"] != fingerprint:
        return None
    outcomes = tuple(
        Outcome(row["id"], tuple(row["log_likelihoods"]), row["acc"], row["acc_norm"])
        for row in value["outcomes"]
    )
    return TaskResult(value["task"], value["metric"], outcomes)


def _write(path: Path, value: dict[str, Any]) -> None:
    fs = FileSystem()
    fs.make_folder(path.parent)
    write_durably(fs, path, (json.dumps(value, ensure_ascii=False) + "\n").encode())
