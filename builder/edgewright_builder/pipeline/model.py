"""The whole road on the host, in order: a recipe, a device profile and a budget become a signed artifact.

    data → student → teacher → search → finetune → quantize → export → evaluate → package

What each stage depends on is said in `teaching`, `shaping` and `finishing`; what it does is a function in `stages/`.
"""

from __future__ import annotations

from dataclasses import asdict

from edgewright import __version__
from edgewright.durable import write_json
from edgewright_builder.artifact.fields import manifest_fields
from edgewright_builder.finishing import run_evaluate, run_package
from edgewright_builder.fit.plan import BuildPlan, plan_to_json, with_group_size
from edgewright_builder.recipe.lineage import portable
from edgewright_builder.run.build import Build
from edgewright_builder.run.run import Stage
from edgewright_builder.shaping import (
    choice_of,
    run_export,
    run_finetune,
    run_quantize,
    run_search,
    run_student,
)
from edgewright_builder.teaching import run_data, run_teacher


def build(job: Build) -> Stage:
    """Runs every stage that is not done; returns the last. `preflight` comes first. Raises EdgewrightError."""
    data = run_data(job)
    student = run_student(job, data)
    _write_plan(job, job.plan, student)
    teacher = run_teacher(job, data)
    best = run_search(job, data, student, teacher)
    plan = with_group_size(job.plan, job.architecture, choice_of(best).group_size, job.calibration)
    _write_plan(job, plan, student)
    finetuned = run_finetune(job, data, student, teacher, best)
    quantized = run_quantize(job, data, finetuned, best)
    exported = run_export(job, quantized)
    lineage = {
        "edgewright": __version__,
        "base_sha256": job.base_digest,
        "knowledge_teacher_sha256": job.knowledge_teacher_digest,
        "data_sha256": data.output_digest,
        "data_pairs": data.summary["pairs"],
        "recipe": portable(job.recipe),
        "hyperparameters": asdict(choice_of(best).hyperparameters),
        "quantization": {"method": "gptq", "symmetric": True, **quantized.summary},
    }
    speed = job.speed_of(plan)
    fields = manifest_fields(job.recipe, plan, speed, job.architecture, job.profile.id, lineage)
    evaluated = run_evaluate(job, student, finetuned, exported, fields)
    return run_package(job, data, exported, evaluated, fields)


def _write_plan(job: Build, plan: BuildPlan, student: Stage) -> None:
    device = {"id": job.profile.id, "name": job.profile.name}
    value = plan_to_json(plan, job.architecture, job.recipe.student.model, device)
    write_json(job.run.folder / "plan.json", value | {"dropped_layers": student.summary["dropped_layers"]})
