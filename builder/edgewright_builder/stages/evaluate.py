"""The stage `evaluate`: several models on several tasks, row by row, so that models can be compared in pairs.

The folder then holds `<model>/<task>.json` for each pair and `results.json` over all. A finished pair is not run again
unless the model, the rows or the task changed, also where another model, row or setting did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import FileSystem, write_durably
from edgewright_builder.tasks.accuracy import paired_difference
from edgewright_builder.tasks.definitions import QUIZ, Definition, QuizForm, chat_quiz
from edgewright_builder.tasks.loading import Task, load_task, task_identity
from edgewright_builder.tasks.results import ScoredQuestion, TaskResult, run_task

if TYPE_CHECKING:
    from edgewright_builder.run.distillation_inputs import Distillation
    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.scoring.scorer import Scorer


@dataclass(frozen=True)
class EvaluatedModel:
    """A model by name. `identity` changes when its answers may; `open` loads it, and is called only if needed."""

    name: str
    identity: str
    open: Callable[[], AbstractContextManager[Scorer]]
    tokenizer: Path | None = None  # whose chat template it is asked in, if that has one; None: the student's


def run_evaluate(
    job: Distillation, models: Sequence[EvaluatedModel], inputs: Mapping[str, Any]
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `results.json`. A finished pair is kept.

    `inputs` are what decides the results besides the tasks' rows: the models, and how they are asked.
    """
    settings = job.recipe.evaluate
    names = settings.tasks or (job.recipe.task,)
    rows = {
        "tasks": [task_identity(name, settings.benchmarks) for name in names],
        "limit": settings.limit,
    }

    def work(folder: Path) -> dict[str, Any]:
        tasks = _tasks(job, names, job.student)
        own = _own_tasks(job, names, models)
        results = evaluate(
            models, tasks, folder, form=settings.quiz, own_tasks=own, on_progress=job.run.reporter.step
        ).results
        return {
            f"{task.name} {model.name}": round(results[model.name, task.name].accuracy().value, 4)
            for task in tasks
            for model in models
        }

    return job.run.stage(
        "evaluate",
        {**rows, **inputs},
        work,
        products=("results.json",),
        resumable=True,
        reuses_results=True,
    )


def _own_tasks(
    job: Distillation, names: Sequence[str], models: Sequence[EvaluatedModel]
) -> dict[str, list[Task]]:
    """Returns by model the tasks of those that are asked in another chat template than the student's."""
    if job.recipe.evaluate.quiz == "plain":
        return {}
    from edgewright_builder.models.folder import load_tokenizer

    with_template = {
        model.name: model.tokenizer
        for model in models
        if model.tokenizer is not None and load_tokenizer(model.tokenizer).chat_template is not None
    }
    return {model: _tasks(job, names, tokenizer) for model, tokenizer in with_template.items()}


def _tasks(job: Distillation, names: Sequence[str], tokenizer: Path) -> list[Task]:
    """Returns the tasks of these names, as the recipe's settings ask them of a model with that tokenizer."""
    settings = job.recipe.evaluate
    quiz = quiz_of(settings.quiz, tokenizer)
    return [load_task(name, settings.benchmarks, settings.limit, quiz) for name in names]


def quiz_of(form: QuizForm, tokenizer_folder: Path) -> Definition:
    """Returns how a user's own file is asked: as ARC asks, or in the chat template of the tokenizer in the folder."""
    if form == "plain":
        return QUIZ
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.train.samples import chat_texts

    tokenizer = load_tokenizer(tokenizer_folder)
    return chat_quiz(lambda question: chat_texts(tokenizer, {"instruction": question, "output": ""})[0])


@contextmanager
def open_checkpoint(folder: Path) -> Iterator[Scorer]:
    """Yields the model in `folder`, loaded into this process."""
    from edgewright_builder.models.folder import load_model, load_tokenizer
    from edgewright_builder.scoring.local import LocalScorer

    yield LocalScorer(load_model(folder), load_tokenizer(folder))


@contextmanager
def open_gptq_checkpoint(folder: Path) -> Iterator[Scorer]:
    """Yields the GPTQ checkpoint in `folder`, each weight the float that its code and scale stand for."""
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
    from edgewright_builder.scoring.local import LocalScorer

    yield LocalScorer(load_dequantized(folder), load_tokenizer(folder))


def accuracies(evaluated: FinishedStage) -> list[dict[str, Any]]:
    """Returns the manifest's accuracy rows, each by its task's own metric."""
    tasks = json.loads((evaluated.folder / "results.json").read_text(encoding="utf-8"))["tasks"]
    return [
        {
            "task": name,
            "model": model,
            "accuracy": values[task["metric"]]["value"],
            "standard_error": values[task["metric"]]["standard_error"],
            "rows": task["rows"],
        }
        for name, task in tasks.items()
        for model, values in task["models"].items()
    ]


@dataclass(frozen=True)
class Evaluation:
    """Results by (model, task), and `summary`, which is what `results.json` holds."""

    results: dict[tuple[str, str], TaskResult]
    summary: dict[str, Any]


def evaluate(
    models: Sequence[EvaluatedModel],
    tasks: Sequence[Task],
    folder: Path,
    *,
    on_progress: OnProgress,
    form: QuizForm = "plain",
    own_tasks: Mapping[str, Sequence[Task]] | None = None,
) -> Evaluation:
    """Evaluates each model on each task; the first model is the baseline of the paired differences.

    Models of one identity are the same weights, so the first of them is scored for all. `form` is how users' own
    files were asked, `own_tasks` are the same tasks as some models are asked them, by name. What the folder holds of
    other models, rows and tasks is removed. Raises what opening and scoring a model raises; results finished before
    that stay.
    """
    results: dict[tuple[str, str], TaskResult] = {}
    asked = {model.name: (own_tasks or {}).get(model.name, tasks) for model in models}
    _remove_others(models, asked, folder)
    for model in models:
        missing = []
        for task in asked[model.name]:
            stored = _stored(model, task, models, folder)
            if stored is None:
                missing.append(task)
            else:
                results[model.name, task.name] = stored
        if missing:
            with model.open() as scorer:
                for task in missing:
                    results[model.name, task.name] = _run(model, task, scorer, folder, on_progress)
    summary = {"quiz": form, **_summary(models, tasks, results)}
    _write(folder / "results.json", summary)
    return Evaluation(results, summary)


def _remove_others(
    models: Sequence[EvaluatedModel], asked: Mapping[str, Sequence[Task]], folder: Path
) -> None:
    """Removes the results that are none of these: a report shows all that are there."""
    wanted = {
        _path(folder, model, task): _fingerprint(model, task)
        for model in models
        for task in asked[model.name]
    }
    (folder / "results.json").unlink(missing_ok=True)
    for path in folder.glob("*/*.json"):
        if path not in wanted or _read(path, wanted[path]) is None:
            path.unlink()


def _stored(
    model: EvaluatedModel, task: Task, models: Sequence[EvaluatedModel], folder: Path
) -> TaskResult | None:
    """Returns the result that this model, or another of the same weights, has in the folder; None if there is none."""
    own = _path(folder, model, task)
    for same in [model, *(other for other in models if other.identity == model.identity)]:
        path = _path(folder, same, task)
        if result := _read(path, _fingerprint(model, task)):
            if path != own:
                _write(own, json.loads(path.read_bytes()))
            return result
    return None


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
    """Returns both accuracies with their errors, and the paired difference to the baseline by the task's own metric."""
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
    """Returns the stored result, None if there is none of this fingerprint."""
    if not path.exists():
        return None
    value = json.loads(path.read_bytes())
    if value["fingerprint"] != fingerprint:
        return None
    outcomes = tuple(
        ScoredQuestion(row["id"], tuple(row["log_likelihoods"]), row["acc"], row["acc_norm"])
        for row in value["outcomes"]
    )
    return TaskResult(value["task"], value["metric"], outcomes)


def _write(path: Path, value: dict[str, Any]) -> None:
    fs = FileSystem()
    fs.make_folder(path.parent)
    write_durably(fs, path, (json.dumps(value, ensure_ascii=False) + "\n").encode())
