"""Reading a recipe's file: YAML to a typed recipe, and complaints that name the key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from edgewright_agent.errors import InputError

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
        raise InputError(f"{path}: {_first_complaint(kind, error)}") from None


def absolute(path: Path | None, folder: Path) -> Path | None:
    """A recipe's path, taken from the folder the recipe is in."""
    return None if path is None else folder / path.expanduser()


def _first_complaint(kind: type[BaseModel], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = errors[0]
    section, key = _at(kind, first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), section.model_fields, n=1)
        known = f"did you mean `{near[0]}`?" if near else f"expected {', '.join(section.model_fields)}."
        return f"unknown key `{key}`; {known}"
    if first["type"] == "missing":
        return f"the key `{key}` is missing."
    # A key that may have several types has an error for each of them.
    wanted = "; or ".join(_wanted(each["msg"]) for each in errors if _at(kind, each["loc"])[1] == key)
    return f"`{key}` is {first['input']!r}: {wanted}." if key else f"{wanted}."


def _wanted(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "expected", 1)


def _at(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """(the section, the dotted key) of an error, without Pydantic's names for the types a key may have."""
    section: type[BaseModel] = kind
    inside: type[BaseModel] | None = kind
    key = []
    for part in location:
        if inside is not None:
            section, inside = inside, _subsection(inside, str(part))
        elif isinstance(part, str):
            continue  # like literal['auto','full']
        key.append(str(part))
    return section, ".".join(key)


def _subsection(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    annotation = section.model_fields[key].annotation if key in section.model_fields else None
    kinds = (kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is None)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
