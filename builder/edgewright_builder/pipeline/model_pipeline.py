"""The whole road on the host, in order: a recipe, a device profile and a budget become a signed artifact.

    data → student → teacher → search → finetune → quantize → recover → export → ladder → evaluate → package

Each stage is one file in `stages/`: what it depends on, what it leaves, and its work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright import __version__
from edgewright.digests import digest_of
from edgewright.durable import write_json
from edgewright_builder.artifact.fields import artifact_files, draft_manifest, manifest_fields
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.plan import BuildPlan, plan_to_json
from edgewright_builder.local_engine.engine import LocalEngine, local_engine, open_arithmetics
from edgewright_builder.local_engine.golden_prompt import OpenEngine
from edgewright_builder.local_engine.reference import open_references
from edgewright_builder.recipe.model_recipe import ServingSettings
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.resumable_run import FinishedStage
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.evaluate import (
    EvaluatedModel,
    open_checkpoint,
    open_gptq_checkpoint,
    run_evaluate,
)
from edgewright_builder.stages.export import run_export
from edgewright_builder.stages.finetune import run_finetune
from edgewright_builder.stages.ladder import Rungs, run_ladder
from edgewright_builder.stages.package import Contents, run_package
from edgewright_builder.stages.quantize import run_quantize
from edgewright_builder.stages.recover import run_recover, shipped
from edgewright_builder.stages.search import read_best, run_search
from edgewright_builder.stages.student import run_student
from edgewright_builder.stages.teacher import run_teacher

if TYPE_CHECKING:
    from edgewright_builder.scoring.scorer import Scorer


def build_model(build: Build) -> FinishedStage:
    """Runs every stage that is not done; returns the last. `preflight` comes first. Raises EdgewrightError."""
    job = build.distillation
    data = run_data(job)
    student = run_student(build, data)
    teacher = run_teacher(job, data)
    search = run_search(build, data, student, teacher)
    plan = build.plan_with(read_best(search).group_size)
    _write_plan(build, plan, student)
    finetuned = run_finetune(build, data, student, teacher, search)
    quantized = run_quantize(build, data, finetuned, search)
    recovered = run_recover(build, data, finetuned, quantized)
    exported = run_export(build, shipped(quantized, recovered))
    rungs = Rungs(student, finetuned, quantized, recovered, exported)
    run_ladder(build, data, teacher, rungs)
    lineage = _lineage(build, data, search, quantized, recovered)
    fields = manifest_fields(
        build.recipe, plan, build.speed_of(plan), build.architecture, build.profile.id, lineage
    )
    evaluated = _evaluate(build, rungs, fields)
    return run_package(job, _contents(build, exported, fields), data, evaluated, build.signing_key)


def _write_plan(build: Build, plan: BuildPlan, student: FinishedStage) -> None:
    device = {"id": build.profile.id, "name": build.profile.name}
    value = plan_to_json(plan, build.architecture, build.recipe.student.model, device)
    write_json(build.run.folder / "plan.json", value | {"dropped_layers": student.summary["dropped_layers"]})


def _lineage(
    build: Build,
    data: FinishedStage,
    search: FinishedStage,
    quantized: FinishedStage,
    recovered: FinishedStage,
) -> dict[str, Any]:
    """Returns what the artifact says of its origin."""
    return {
        "edgewright": __version__,
        "base_sha256": build.distillation.student_digest,
        "knowledge_teacher_sha256": build.distillation.teacher_digest,
        "data_sha256": data.output_digest,
        "data_pairs": data.summary["pairs"],
        "recipe": build.recipe.portable(),
        "hyperparameters": asdict(read_best(search).hyperparameters),
        "quantization": {"method": "gptq", "symmetric": True, **quantized.summary},
        **({} if build.recipe.recover.train == "off" else {"recovery": recovered.summary}),
    }


def _evaluate(build: Build, rungs: Rungs, fields: Mapping[str, Any]) -> FinishedStage:
    """Evaluates every model of the build: checkpoints in this process, the export in the engine that serves it.

    Where that runs on boards alone, the export's own weights are evaluated in this process too.
    """
    exported = rungs.exported
    opened: Callable[[], AbstractContextManager[Scorer]] = partial(_open_export, exported.folder, fields)
    if not engine_traits(build.recipe.serving.engine).runs_on_host:
        opened = partial(open_gptq_checkpoint, exported.folder / "engine")
    identity = exported_identity(exported, build.recipe.serving)
    models = [*_checkpoints(build, rungs), EvaluatedModel("exported", identity, opened)]
    inputs = {
        "models": {model.name: model.identity for model in models},
        "quiz": build.recipe.evaluate.quiz,
    }
    return run_evaluate(build.distillation, models, inputs)


def exported_identity(exported: FinishedStage, serving: ServingSettings) -> str:
    """Returns a digest of what the export's answers depend on: not of what a board must keep to."""
    return digest_of([exported.output_digest, serving.engine, serving.context_tokens, serving.concurrency])


def _checkpoints(build: Build, rungs: Rungs) -> Iterator[EvaluatedModel]:
    """Yields the models before the export, in the order of their making."""
    job = build.distillation
    if job.served_teacher is None:
        opened = partial(open_checkpoint, job.teacher)
        yield EvaluatedModel("teacher", job.teacher_digest, opened, tokenizer=job.teacher)
    whole = not rungs.student.summary["dropped_layers"]
    student = job.student_digest if whole else rungs.student.output_digest
    yield EvaluatedModel("student", student, partial(open_checkpoint, rungs.student.folder / "model"))
    finetuned = rungs.finetuned
    yield EvaluatedModel(
        "finetuned", finetuned.output_digest, partial(open_checkpoint, finetuned.folder / "model")
    )
    for name in ("quantized", "recovered"):
        stage: FinishedStage = getattr(rungs, name)
        if (checkpoint := stage.folder / "model").is_dir():
            yield EvaluatedModel(name, stage.output_digest, partial(open_gptq_checkpoint, checkpoint))


@contextmanager
def _open_export(export: Path, fields: Mapping[str, Any]) -> Iterator[LocalEngine]:
    with local_engine(export, draft_manifest(export, fields)) as engine:
        yield engine


def _open_arithmetics(export: Path, fields: Mapping[str, Any], scratch: Path) -> Sequence[OpenEngine]:
    if not engine_traits(fields["engine"]["kind"]).runs_on_host:
        return open_references(export / "engine")
    return open_arithmetics(export, draft_manifest(export, fields), scratch)


def _contents(build: Build, exported: FinishedStage, fields: Mapping[str, Any]) -> Contents:
    bf16_bytes = build.architecture.with_layers(build.plan.configuration.layers).bf16_bytes

    def sizes(artifact: Path) -> dict[str, float]:
        size_bytes = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file())
        return {"size_bytes": size_bytes, "times_smaller_than_bf16": bf16_bytes / size_bytes}

    return Contents(
        inputs={"export": exported.output_digest},
        files=artifact_files(exported.folder),
        fields=fields,
        open_engines=partial(_open_arithmetics, exported.folder, fields),
        sizes=sizes,
    )
