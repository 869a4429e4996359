"""The recipe as an artifact carries it: what was asked for, without where it was on the machine that built it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright_builder.recipe.model import Recipe


def portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values with paths cut to names, and without endpoints and keys."""
    values = recipe.model_dump(mode="json")
    values["student"]["model"] = model_name(recipe.student.model)
    values["teachers"]["knowledge"]["model"] = model_name(recipe.teachers.knowledge.model)
    if recipe.teachers.data is not None:
        values["teachers"]["data"] = {"model": model_name(recipe.teachers.data.model)}
    values["data"]["file"] = None if recipe.data.file is None else recipe.data.file.name
    values["data"]["prompts"] = None if recipe.data.prompts is None else recipe.data.prompts.name
    earlier = recipe.quantize.delta_from
    values["quantize"]["delta_from"] = None if earlier is None else earlier.name
    values["evaluate"]["benchmarks"] = None
    values["evaluate"]["tasks"] = [Path(task).name for task in recipe.evaluate.tasks]
    return values


def model_name(source: str) -> str:
    """A hub id or a wheel as it is; of a folder or file only the name."""
    local = Path(source).expanduser()
    return local.name if local.is_absolute() or source.startswith(".") or local.exists() else source
