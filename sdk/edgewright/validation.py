"""Says what is wrong with the keys and values of a file that people write, in a sentence that names the key."""

from __future__ import annotations

import difflib
from datetime import date
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MESSAGE_CHARACTERS_MAX = 400  # a name in it may be of any length
SHOWN_CHARACTERS_MAX = 100  # a value may be all that is below a key


def first_complaint(kind: type[BaseModel], error: ValidationError) -> str:
    """Returns what Pydantic found wrong first; an unknown key before all else, as it may be one that is missing,
    misspelt.
    """
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    section, key = _at(kind, first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), section.model_fields, n=1)
        known = f"did you mean `{near[0]}`?" if near else f"expected {', '.join(section.model_fields)}."
        return f"unknown key `{key}`; {known}"
    if first["type"] == "missing":
        return f"the key `{key}` is missing."
    # A key that may have several types has an error for each of them.
    alternatives = "; or ".join(wanted(each) for each in errors if _at(kind, each["loc"])[1] == key)
    return f"{_subject(key, first)}{alternatives}."


def _subject(key: str, error: ErrorDetails) -> str:
    value = str(error["input"]) if isinstance(error["input"], date) else repr(error["input"])
    if not key:
        return ""
    return f"`{key}` is {value}: " if len(value) <= SHOWN_CHARACTERS_MAX else f"`{key}`: "


def wanted(error: ErrorDetails) -> str:
    """Returns what was expected, in the words of YAML's writers instead of Python's and Pydantic's."""
    kind = error["type"]
    if kind in _PLAIN:
        bounds = {key: plain(value) for key, value in error.get("ctx", {}).items()}
        return f"expected {_PLAIN[kind].format(**bounds)}"
    if kind == "string_type":
        return _text_wanted(error["input"])
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return message if len(message) <= MESSAGE_CHARACTERS_MAX else f"{message[:MESSAGE_CHARACTERS_MAX]}…"


_PLAIN = {
    "model_type": "keys and values",
    "dict_type": "keys and values",
    "tuple_type": "a list, such as [a, b]",
    "list_type": "a list, such as [a, b]",
    "path_type": "a path",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer of some digits",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "too_short": "{min_length} or more of them, not {actual_length}",
    "string_pattern_mismatch": "text of the form {pattern}",
}


def plain(value: Any) -> str:
    """Returns a bound as people write it: 86400.0 is 86,400."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _text_wanted(value: Any) -> str:
    if isinstance(value, bool):
        return "expected text; in quotes, as YAML reads true, yes and on as a flag"
    # A version such as 1.10 is a number without quotes, and not the same one.
    kind = "number" if isinstance(value, (int, float)) else "date" if isinstance(value, date) else None
    return (
        "expected text" if kind is None else f"expected text; put it in quotes, as YAML reads it as a {kind}"
    )


def _at(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """Returns (the section, the dotted key) of an error, without Pydantic's names for the types a key may have."""
    section: type[BaseModel] = kind
    inside: type[BaseModel] | None = kind
    key: list[str] = []
    for part in location:
        if isinstance(part, str):
            if inside is not None:
                section, inside = inside, subsection(inside, part)
            elif not _is_map(section, key[-1]):
                continue  # like literal['auto','full']
        key.append(str(part))
    return section, ".".join(key)


def _is_map(section: type[BaseModel], key: str) -> bool:
    return get_origin(_annotation(section, key)) is dict


def _annotation(section: type[BaseModel], key: str) -> Any:
    return section.model_fields[key].annotation if key in section.model_fields else None


def subsection(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Returns the model of the mapping below a key; None where the key has no keys of its own."""
    annotation = _annotation(section, key)
    kinds = (kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is None)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
