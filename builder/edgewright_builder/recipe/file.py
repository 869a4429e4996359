"""Reading a recipe's file: YAML to a typed recipe, and complaints that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgewright.errors import InputError
from edgewright.validation import first_complaint

AnyRecipe = TypeVar("AnyRecipe", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values in `path`; raises InputError if there are none."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no recipe at {path}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}.") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds {type(raw).__name__}, not the keys and values of a recipe.")
    return raw


def parse(kind: type[AnyRecipe], path: Path) -> AnyRecipe:
    """The recipe of this kind in `path`.

    Raises InputError naming the first wrong key, its value and what was expected.
    """
    raw = read_yaml(path)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path}: {first_complaint(kind, error)}") from None


def absolute(path: Path | None, folder: Path) -> Path | None:
    """A recipe's path, taken from the folder the recipe is in."""
    return None if path is None else folder / path.expanduser()
