"""Reads a recipe's file: YAML becomes a typed recipe, and complaints name the key."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgewright.errors import InputError
from edgewright.validation import first_complaint
from edgewright.yaml_files import read_mapping

AnyRecipe = TypeVar("AnyRecipe", bound=BaseModel)


class Section(BaseModel):
    """A mapping in a recipe: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse(model: type[AnyRecipe], path: Path, kind: str = "recipe") -> AnyRecipe:
    """Returns the recipe in `path`, or what else `kind` calls it in errors.

    Raises InputError that names the first wrong key, its value and what was expected.
    """
    values = read_mapping(path, kind)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {first_complaint(model, error)}") from None


def absolute(path: Path | None, folder: Path) -> Path | None:
    """Returns a recipe's path as seen from `folder`, in which the recipe lies."""
    return None if path is None else folder / path.expanduser()


def model_name(source: str) -> str:
    """Returns a model's source without this machine's paths: a hub id or a wheel as it is, of a path only the name."""
    path = Path(source).expanduser()
    return path.name if path.is_absolute() or source.startswith(".") or path.exists() else source
