"""A base that boards have and a recipe become an adapter, a signed artifact of a few percent of the base's bytes.

    data → teacher → finetune → evaluate → package

The stages of `pipeline.py` but those that make the model: it is there, in 4 bits, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright import __version__
from edgewright.dsse import key_id
from edgewright.errors import InputError
from edgewright.sizes import format_bytes
from edgewright_builder.artifact.artifact import MANIFEST_NAME, write_artifact
from edgewright_builder.finishing import accuracies, first_prompts, load_tasks, task_identity
from edgewright_builder.fit.bound import PeakBound, adapter_bound
from edgewright_builder.local_engine.golden import golden_prompt
from edgewright_builder.models import require_same_vocabulary
from edgewright_builder.pipeline.adapter_base import Base, require_slots
from edgewright_builder.pipeline.preflight import check_data, check_tasks
from edgewright_builder.recipe.adapter import AdapterRecipe
from edgewright_builder.recipe.model import KnowledgeTeacher, Recipe, Student, Teachers
from edgewright_builder.run.build import Build
from edgewright_builder.run.run import Run, Stage
from edgewright_builder.teaching import distillation_data, run_data, run_teacher
from edgewright_profiles import DeviceProfile

ADAPTER_PATH = "adapter/model.onnx_adapter"  # in the finetune stage's folder and in the artifact


@dataclass(frozen=True)
class AdapterBuild:
    """One adapter: of what base, from what recipe, for what board, and where."""

    recipe: AdapterRecipe
    base: Base
    profile: DeviceProfile
    budget_bytes: int
    run: Run
    signing_key: Ed25519PrivateKey

    @cached_property
    def as_build(self) -> Build:
        """The base's 4-bit checkpoint as the student, for the stages that adapters share with models."""
        recipe = self.recipe
        knowledge = recipe.teachers.knowledge or KnowledgeTeacher(model=str(self.base.unquantized))
        shared = Recipe(
            name=recipe.name,
            task=recipe.task,
            seed=recipe.seed,
            student=Student(model=str(self.base.checkpoint), depth="full"),
            teachers=Teachers(data=recipe.teachers.data, knowledge=knowledge),
            data=recipe.data,
            finetune=recipe.finetune,
            evaluate=recipe.evaluate,
        )
        return Build(shared, self.profile, self.budget_bytes, self.run, self.signing_key)

    @property
    def modules(self) -> tuple[str, ...]:
        """What the adapter changes."""
        return self.recipe.adapter.modules or self.base.slots.modules


def preflight_adapter(job: AdapterBuild) -> None:
    """Raises the error that `build_adapter` would come to later, and leaves the run's folder as it is."""
    manifest = job.base.artifact.manifest
    require_slots(job.base.slots, job.modules, job.recipe.adapter.rank)
    if job.profile.id not in manifest.device_profiles:
        made_for = ", ".join(manifest.device_profiles)
        raise InputError(
            f"The base was made for {made_for}, not for {job.profile.id}; give --device one of them."
        )
    if job.recipe.teachers.knowledge is None and not (job.base.unquantized / "config.json").is_file():
        raise InputError(f"{job.base.unquantized} is gone; name a model in `teachers.knowledge`.")
    check_tasks(job.recipe.evaluate, job.recipe.task)
    check_data(job.as_build)
    require_same_vocabulary(job.as_build.base, job.as_build.knowledge_teacher)


def build_adapter(job: AdapterBuild) -> Stage:
    """Runs every stage that is not done; returns the last. `preflight_adapter` comes first. Raises EdgewrightError."""
    data = run_data(job.as_build)
    teacher = run_teacher(job.as_build, data)
    finetuned = _run_finetune(job, data, teacher)
    _require_budget(job, finetuned)
    evaluated = _run_evaluate(job, finetuned)
    return _run_package(job, data, finetuned, evaluated)


def _run_finetune(job: AdapterBuild, data: Stage, teacher: Stage) -> Stage:
    """Stage 3."""
    recipe, settings = job.recipe, job.recipe.adapter
    inputs = {
        "checkpoint": job.as_build.base_digest,
        "teacher": teacher.output_digest,
        "adapter": settings.model_dump() | {"alpha": recipe.alpha, "modules": job.modules},
        "finetune": recipe.finetune.model_dump(),
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.finetune_adapter import finetune_adapter
        from edgewright_builder.train.lora import Hyperparameters

        hyperparameters = Hyperparameters(**_hyperparameters(recipe))
        return finetune_adapter(
            job.base.checkpoint, distillation_data(job.as_build, data, teacher), hyperparameters, job.modules,
            settings.epochs, recipe.finetune, recipe.seed, folder, job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("finetune", inputs, work, products=("adapter",))


def _hyperparameters(recipe: AdapterRecipe) -> dict[str, Any]:
    settings = recipe.adapter
    return {
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "lora_rank": settings.rank,
        "lora_scale": settings.scale,
        "temperature": settings.temperature,
        "alpha": recipe.alpha,
    }


def _require_budget(job: AdapterBuild, finetuned: Stage) -> None:
    bound = _bound(job, finetuned)
    if not bound.fits:
        raise InputError(
            f"Base and adapter are predicted to take {format_bytes(bound.upper_bytes)} at most, the budget is "
            f"{format_bytes(job.budget_bytes)}. Lower `adapter.rank`, or build the base for a smaller budget."
        )


def _bound(job: AdapterBuild, finetuned: Stage) -> PeakBound:
    base = job.base.artifact.manifest.memory
    return adapter_bound(base, finetuned.summary["adapter_bytes"], job.budget_bytes)


def _run_evaluate(job: AdapterBuild, finetuned: Stage) -> Stage:
    """Stage 4: base and adapter on the same rows, both in the engine that serves."""
    settings, base = job.recipe.evaluate, job.base.artifact
    names = settings.tasks or (job.recipe.task,)
    models = {"base": base.digest, "adapter": f"{base.digest} {finetuned.output_digest}"}
    inputs = {
        "models": models,
        "tasks": [task_identity(name, settings.benchmarks) for name in names],
        "limit": settings.limit,
        "quiz": settings.quiz,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.evaluate import EvaluatedModel, evaluate

        tasks = load_tasks(settings, names, job.as_build.base)
        evaluated = [
            EvaluatedModel("base", models["base"], lambda: _engine(job, None)),
            EvaluatedModel("adapter", models["adapter"], lambda: _engine(job, finetuned)),
        ]
        result = evaluate(evaluated, tasks, folder, on_progress=job.run.reporter.step)
        return {
            f"{task.name} {name}": round(result.results[name, task.name].accuracy().value, 4)
            for task in tasks
            for name in models
        }

    return job.run.stage("evaluate", inputs, work, products=("results.json",), resumable=True)


def _engine(job: AdapterBuild, finetuned: Stage | None) -> AbstractContextManager[Any]:
    """The base in the engine that will serve it, with the adapter or without."""

    @contextmanager
    def opened() -> Iterator[Any]:
        from edgewright_builder.local_engine.engine import local_engine

        adapter = None if finetuned is None else finetuned.folder / ADAPTER_PATH
        base = job.base.artifact
        with local_engine(base.folder, base.manifest, adapter=adapter) as engine:
            yield engine

    return opened()


def _run_package(job: AdapterBuild, data: Stage, finetuned: Stage, evaluated: Stage) -> Stage:
    """Stage 5. Also run again where the artifact is gone or another key is to sign it."""
    artifact = job.run.folder / "artifact"
    fields = _manifest_fields(job, data, finetuned)
    inputs = {
        "adapter": finetuned.output_digest,
        "evaluate": evaluated.output_digest,
        "fields": fields,
        "key": key_id(job.signing_key.public_key()),
    }
    if not (artifact / MANIFEST_NAME).exists():
        (job.run.folder / "package" / "stage.json").unlink(missing_ok=True)

    def work(folder: Path) -> dict[str, Any]:
        prompts = first_prompts(data, job.as_build.base)
        with _engine(job, finetuned) as engine:
            golden = golden_prompt(engine, prompts)
        measured = {"golden": golden, "accuracy": accuracies(evaluated.folder)}
        files = {ADAPTER_PATH: finetuned.folder / ADAPTER_PATH}
        digest = write_artifact(artifact, files, fields | measured, job.signing_key)
        size_bytes: int = finetuned.summary["adapter_bytes"]
        share = size_bytes / job.base.artifact.manifest.size_bytes
        return {"artifact": digest, "size_bytes": size_bytes, "fraction_of_base": share}

    return job.run.stage("package", inputs, work, products=())


def _manifest_fields(job: AdapterBuild, data: Stage, finetuned: Stage) -> dict[str, Any]:
    """The fields of `Manifest` but `files`, `golden` and `accuracy`; what serves is the base's."""
    recipe, base = job.recipe, job.base.artifact
    kept = base.manifest.model_dump(
        mode="json", include={"engine", "model", "limits", "memory", "performance"}
    )
    kept["memory"]["predicted_peak_bytes"] = _bound(job, finetuned).peak_bytes
    spec = {
        "base": base.digest,
        "path": ADAPTER_PATH,
        "modules": list(job.modules),
        "rank": recipe.adapter.rank,
    }
    lineage = {
        "edgewright": __version__,
        "base_checkpoint_sha256": job.as_build.base_digest,
        "knowledge_teacher_sha256": job.as_build.knowledge_teacher_digest,
        "data_sha256": data.output_digest,
        "data_pairs": data.summary["pairs"],
        "recipe": recipe.portable(),
        "hyperparameters": _hyperparameters(recipe),
    }
    return {
        **kept,
        "name": recipe.name,
        "version": recipe.version,
        "release_counter": recipe.release_counter or base.manifest.release_counter,
        "device_profiles": [job.profile.id],
        "adapter": spec,
        "lineage": lineage | {"training": finetuned.summary},
    }
