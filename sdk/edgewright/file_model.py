"""The base of everything that people write in YAML: recipes, studies, fleets, task presets and device profiles."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from edgewright.errors import InputError
from edgewright.validation import first_complaint
from edgewright.yaml_files import read_mapping


class FileModel(BaseModel):
    """Keys and values of a file. It is immutable, and an unknown key is an error.

    A flag is no number: YAML reads `yes` and `on` as true, which Python would take for 1. Infinity and NaN are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_flag_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if _has_flag(value) and _takes_numbers_alone(cls, str(info.field_name)):
            raise ValueError("expected a number; YAML reads true, yes and on as a flag")
        return value


def _has_flag(value: Any) -> bool:
    """Whether a value is a flag, or holds one in a list or a map."""
    if isinstance(value, (list, dict)):
        return any(map(_has_flag, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool)


@cache
def _takes_numbers_alone(model: type[BaseModel], field: str) -> bool:
    """Whether numbers are among the types of a field, and flags are not."""
    types = _plain_types(model.model_fields[field].annotation)
    return bool(types & {int, float}) and not types & {bool, Any}


def _plain_types(annotation: Any) -> set[Any]:
    """Returns the types that an annotation is made of: of `tuple[int, ...] | None` tuple, int, None and `...`."""
    parts = get_args(annotation)
    return {annotation} if not parts else {kind for part in parts for kind in _plain_types(part)}


Model = TypeVar("Model", bound=FileModel)


def read_file(model: type[Model], path: Path, kind: str) -> Model:
    """Returns what the file in `path` says; `kind` says in errors what is expected there, such as "recipe".

    Raises InputError where the file can't be read, or that names the first wrong key, its value and what was expected.
    """
    return checked(model, read_mapping(path, kind), str(path))


def checked(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Returns the values as a model; `where` names them in errors. Raises InputError that names the first wrong key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {first_complaint(model, error)}") from None
