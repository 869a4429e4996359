"""The last two stages, which say what was made: evaluate, then package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from edgewright.digests import file_sha256
from edgewright.dsse import key_id
from edgewright_builder.artifact.artifact import MANIFEST_NAME
from edgewright_builder.artifact.fields import draft_manifest
from edgewright_builder.local_engine.golden import PROMPTS, golden_prompt
from edgewright_builder.recipe.model import Evaluate
from edgewright_builder.run.build import Build
from edgewright_builder.run.run import Stage
from edgewright_builder.stages.package import package


def run_evaluate(
    job: Build, student: Stage, finetuned: Stage, exported: Stage, fields: dict[str, Any]
) -> Stage:
    """Stage 8."""
    settings = job.recipe.evaluate
    names = settings.tasks or (job.recipe.task,)
    models = {
        "teacher": (job.knowledge_teacher, job.knowledge_teacher_digest),
        "student": (student.folder / "model", student.output_digest),
        "finetuned": (finetuned.folder / "model", finetuned.output_digest),
    }
    inputs = {
        "models": {name: digest for name, (_, digest) in models.items()},
        "exported": exported.output_digest,
        "tasks": [task_identity(name, settings.benchmarks) for name in names],
        "limit": settings.limit,
        "serving": job.recipe.serving.model_dump(),
    }

    if settings.quiz != "plain":
        inputs["quiz"] = settings.quiz

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.evaluate import EvaluatedModel, evaluate

        tasks = load_tasks(settings, names, job.base)
        manifest = draft_manifest(exported.folder, fields)
        evaluated = [EvaluatedModel(name, digest, _opener(path)) for name, (path, digest) in models.items()]
        evaluated.append(
            EvaluatedModel("exported", exported.output_digest, _engine_opener(exported.folder, manifest))
        )
        result = evaluate(evaluated, tasks, folder, on_progress=job.run.reporter.step)
        return {
            f"{task.name} {name}": round(result.results[name, task.name].accuracy().value, 4)
            for task in tasks
            for name in (*models, "exported")
        }

    return job.run.stage("evaluate", inputs, work, products=("results.json",), resumable=True)


def load_tasks(settings: Evaluate, names: Sequence[str], tokenizer_folder: Path) -> list[Any]:
    """The tasks of these names, as the settings ask them."""
    from edgewright_builder.models import load_tokenizer
    from edgewright_builder.tasks.definitions import QUIZ, chat_quiz
    from edgewright_builder.tasks.loading import load_task
    from edgewright_builder.train.samples import chat_texts

    quiz = QUIZ
    if settings.quiz == "chat":
        tokenizer = load_tokenizer(tokenizer_folder)
        quiz = chat_quiz(lambda question: chat_texts(tokenizer, {"instruction": question, "output": ""})[0])
    return [load_task(name, settings.benchmarks, settings.limit, quiz) for name in names]


def task_identity(name: str, benchmarks: Path | None) -> list[str]:
    """What a task's rows are: their file's digest, or only the name where they come from the hub."""
    file = Path(name) if name.endswith(".jsonl") else benchmarks / name / "eval.jsonl" if benchmarks else None
    return [Path(name).name, file_sha256(file) if file is not None and file.is_file() else "hub"]


def _opener(folder: Path) -> Any:
    """Opens a model on the host as a scorer."""

    @contextmanager
    def open_model() -> Iterator[Any]:
        from edgewright_builder.models import load_model, load_tokenizer
        from edgewright_builder.scoring.local import LocalScorer

        yield LocalScorer(load_model(folder), load_tokenizer(folder))

    return open_model


def _engine_opener(tree: Path, manifest: Any) -> Any:
    """Opens the exported model in the engine that will serve it."""

    @contextmanager
    def open_engine() -> Iterator[Any]:
        from edgewright_builder.local_engine.engine import local_engine

        with local_engine(tree, manifest) as engine:
            yield engine

    return open_engine


def run_package(job: Build, data: Stage, exported: Stage, evaluated: Stage, fields: dict[str, Any]) -> Stage:
    """Stage 9. Also run again where the artifact is gone or another key is to sign it."""
    artifact = job.run.folder / "artifact"
    inputs = {
        "export": exported.output_digest,
        "evaluate": evaluated.output_digest,
        "fields": fields,
        "key": key_id(job.signing_key.public_key()),
    }
    if not (artifact / MANIFEST_NAME).exists():
        (job.run.folder / "package" / "stage.json").unlink(missing_ok=True)

    def work(folder: Path) -> dict[str, Any]:
        measured = {"golden": _golden(job, data, exported, fields), "accuracy": accuracies(evaluated.folder)}
        bf16_bytes = job.architecture.with_layers(job.plan.configuration.layers).bf16_bytes
        return package(exported.folder, fields | measured, job.signing_key, artifact, bf16_bytes)

    return job.run.stage("package", inputs, work, products=())


def _golden(job: Build, data: Stage, exported: Stage, fields: dict[str, Any]) -> dict[str, Any]:
    """A greedy completion by the engine that serves, which every board must reproduce."""
    prompts = first_prompts(data, job.base)
    with _engine_opener(exported.folder, draft_manifest(exported.folder, fields))() as engine:
        return golden_prompt(engine, prompts)


def first_prompts(data: Stage, tokenizer_folder: Path) -> list[str]:
    """The first questions of the data in the model's chat template."""
    from edgewright_builder.models import load_tokenizer
    from edgewright_builder.train.samples import chat_texts

    tokenizer = load_tokenizer(tokenizer_folder)
    with (data.folder / "data.jsonl").open(encoding="utf-8") as file:
        return [chat_texts(tokenizer, json.loads(line))[0] for line in islice(file, PROMPTS)]


def accuracies(folder: Path) -> list[dict[str, Any]]:
    """The manifest's accuracy rows, each by its task's own metric."""
    tasks = json.loads((folder / "results.json").read_text(encoding="utf-8"))["tasks"]
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
