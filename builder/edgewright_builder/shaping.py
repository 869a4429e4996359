"""The stages that change the model itself: student, search, finetune, quantize, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewright_builder.fit.engines import DEFAULT_ENGINE
from edgewright_builder.fit.plan import with_group_size
from edgewright_builder.quantization.earlier import Earlier, earlier_model
from edgewright_builder.recipe.model import Recipe
from edgewright_builder.run.build import Build
from edgewright_builder.run.run import Stage
from edgewright_builder.teaching import distillation_data, samples_of


def run_student(job: Build, data: Stage) -> Stage:
    """Stage 2."""
    layers, drop_layers = job.plan.configuration.layers, job.recipe.student.drop_layers
    inputs = {"base": job.base_digest, "layers": layers, "drop_layers": drop_layers}
    if layers < job.architecture.layers and drop_layers is None:
        inputs["data"] = data.output_digest

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.student import make_student

        return make_student(
            job.base, samples_of(job, data), layers, drop_layers, folder, job.run.reporter.step
        )

    return job.run.stage("student", inputs, work, products=("model",))


def run_search(job: Build, data: Stage, student: Stage, teacher: Stage) -> Stage:
    """Stage 4."""
    recipe = job.recipe
    candidates = _feasibilities(job)
    inputs = {
        "student": student.output_digest,
        "teacher": teacher.output_digest,
        "search": recipe.search.model_dump(),
        "finetune": recipe.finetune.model_dump(),
        "group_sizes": [each.group_size for each in candidates if each.bound.fits],
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.search import search

        return search(
            student.folder / "model", distillation_data(job, data, teacher), recipe.search, recipe.finetune,
            candidates, recipe.seed, folder, job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("search", inputs, work, products=("best.json",), resumable=True)


def _feasibilities(job: Build) -> list[Any]:
    """h(m̂) of every group size the search may choose, before anything is trained."""
    from edgewright_builder.stages.search import Feasibility

    m = job.plan.configuration
    largest = job.architecture.largest_group_size()
    wished: list[int] = [size for size in job.recipe.search.space.group_size if size <= largest]
    sizes = wished or [m.group_size]
    plans = [with_group_size(job.plan, job.architecture, size, job.calibration) for size in sizes]
    return [Feasibility(plan.configuration.group_size, plan.bound) for plan in plans]


def choice_of(best: Stage) -> Any:
    """What the search found."""
    from edgewright_builder.stages.search import read_best

    return read_best(best.folder)


def run_finetune(job: Build, data: Stage, student: Stage, teacher: Stage, best: Stage) -> Stage:
    """Stage 5."""
    recipe, choice = job.recipe, choice_of(best)
    inputs = {
        "student": student.output_digest,
        "teacher": teacher.output_digest,
        "choice": asdict(choice),
        "finetune": recipe.finetune.model_dump(),
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.finetune import finetune

        return finetune(
            student.folder / "model", distillation_data(job, data, teacher), choice, recipe.finetune, recipe.seed,
            folder, job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("finetune", inputs, work, products=("model",))


def run_quantize(job: Build, data: Stage, finetuned: Stage, best: Stage) -> Stage:
    """Stage 6."""
    sequences, group_size = job.recipe.quantize.calibration_sequences, choice_of(best).group_size
    inputs = {
        "model": finetuned.output_digest,
        "data": data.output_digest,
        "sequences": sequences,
        "group_size": group_size,
        "seed": job.recipe.seed,
    }
    earlier = earlier_of(job.recipe)
    if earlier is not None:
        inputs["earlier"] = [earlier.digest, earlier.dead_band]

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.quantize import quantize
        from edgewright_builder.train.samples import split

        samples = samples_of(job, data)
        train, _ = split(samples, job.recipe.finetune.validation_fraction, job.recipe.seed)
        calibration = [samples[index] for index in train]
        return quantize(
            finetuned.folder / "model", calibration, sequences, group_size, job.recipe.seed, folder,
            job.run.reporter.step, earlier,
        )  # fmt: skip

    return job.run.stage("quantize", inputs, work, products=("model",))


def earlier_of(recipe: Recipe) -> Earlier | None:
    """The model whose codes are kept where they can be; None unless the recipe names one."""
    settings = recipe.quantize
    return None if settings.delta_from is None else earlier_model(settings.delta_from, settings.dead_band)


def run_export(job: Build, quantized: Stage) -> Stage:
    """Stage 7."""
    serving, embedding_bits = job.recipe.serving, job.plan.configuration.embedding_bits
    modules = () if serving.adapters is None else serving.adapters.modules
    inputs = {"checkpoint": quantized.output_digest, "embedding_bits": embedding_bits}
    if modules:
        inputs["adapter_modules"] = modules
    if serving.engine != DEFAULT_ENGINE:
        inputs["engine"] = serving.engine

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.export.for_engine import export_for_engine

        return export_for_engine(serving.engine, quantized.folder / "model", embedding_bits, folder, modules)

    return job.run.stage("export", inputs, work, products=("engine", "tokenizer"))
