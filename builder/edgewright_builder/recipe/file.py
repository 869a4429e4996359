"""Reads a recipe's file: YAML becomes a typed recipe, and complaints name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from edgewright.errors import InputError
from edgewright.validation import first_complaint

AnyRecipe = TypeVar("AnyRecipe", bound=BaseModel)


class Section(BaseModel):
    """A mapping in a recipe: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the keys and values in `path`. Raises InputError if the file is missing, damaged or holds none."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no recipe at {path}; give the path of a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path} is not a readable YAML file: {' '.join(str(error).split())}. Correct it."
        ) from None
    if not isinstance(raw, dict):
        raise InputError(
            f"{path} holds {type(raw).__name__}, not the keys and values of a recipe; see examples/ for some."
        )
    return raw


def parse(kind: type[AnyRecipe], path: Path) -> AnyRecipe:
    """Returns the recipe of this kind in `path`.

    Raises InputError that names the first wrong key, its value and what was expected.
    """
    raw = read_yaml(path)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path}: {first_complaint(kind, error)}") from None


def absolute(path: Path | None, folder: Path) -> Path | None:
    """Returns a recipe's path as seen from `folder`, in which the recipe lies."""
    return None if path is None else folder / path.expanduser()


def model_name(source: str) -> str:
    """Returns a model's source without this machine's paths: a hub id or a wheel as it is, of a path only the name."""
    path = Path(source).expanduser()
    return path.name if path.is_absolute() or source.startswith(".") or path.exists() else source
