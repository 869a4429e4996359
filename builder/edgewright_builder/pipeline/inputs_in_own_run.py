"""Refuses a build that would read what it clears itself: an input that lies in a stage of its own run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgewright.errors import InputError
from edgewright.folders import expanded
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.resumable_run import STAGES


def refuse_own_products(recipe: Recipe | AdapterRecipe, run: Path) -> None:
    """Raises InputError for a path in the recipe that is the run's folder, or lies in one of its stages."""
    for key, path in _paths(recipe):
        place = expanded(path).resolve()
        if place == run.resolve() or any(place.is_relative_to((run / name).resolve()) for name in STAGES):
            raise InputError(
                f"`{key}` is {path}, which this build itself makes and may clear before it is read. Copy it elsewhere, "
                "or choose another --out."
            )


def _paths(recipe: Recipe | AdapterRecipe) -> Iterator[tuple[str, Path]]:
    """Yields what a recipe reads, by its key. A hub id is taken for a path too: nothing lies there."""
    teachers, data, evaluate = recipe.teachers, recipe.data, recipe.evaluate
    named: dict[str, str | Path | None] = {
        "teachers.data.model": teachers.data.model if teachers.data is not None else None,
        "teachers.knowledge.model": teachers.knowledge.model if teachers.knowledge is not None else None,
        "data.file": data.file,
        "data.prompts": data.prompts,
        "evaluate.benchmarks": evaluate.benchmarks,
    }
    if isinstance(recipe, AdapterRecipe):
        named["base"] = recipe.base
    else:
        named |= {
            "student.model": recipe.student.model,
            "quantize.delta_from": recipe.quantize.delta_from,
            "quantize.general_data": recipe.quantize.general_data,
            "recover.data": recipe.recover.data,
        }
    yield from ((key, Path(path)) for key, path in named.items() if path is not None)
    yield from (("evaluate.tasks", Path(task)) for task in evaluate.tasks)
