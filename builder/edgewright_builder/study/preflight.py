"""Finds what cells would miss before any of them is run: it would be found after hours of training, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.digests import digest_of
from edgewright_builder.pipeline.preflight import check_data, check_general_text, check_quantizer, check_tasks
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.stages.general_text import general_samples
from edgewright_builder.study.cells import StudyCell
from edgewright_builder.study.run_cell import Workbench


def require_inputs(cells: Sequence[StudyCell], bench: Workbench) -> None:
    """Raises InputError for data, tasks or general text that a cell can't read, and for a package that it lacks.

    Cells that read the same count once.
    """
    for recipe in {_identity(cell.recipe): cell.recipe for cell in cells}.values():
        job = bench.build_of(recipe).distillation
        check_tasks(recipe.evaluate, recipe.task)
        check_data(job)
        check_general_text(recipe, job.student)
        if recipe.recover.data is not None:  # what 4 bits change is measured on it, whoever else reads it
            general_samples(job.student, recipe.recover.data, recipe.finetune.sequence_tokens)
        check_quantizer(recipe)


def _identity(recipe: Recipe) -> str:
    """Returns a digest of the sections that name what is read."""
    read = recipe.model_dump(mode="json", include={"student", "teachers", "data", "task", "evaluate"})
    return digest_of([read, recipe.quantize.model_dump(mode="json"), recipe.recover.model_dump(mode="json")])
