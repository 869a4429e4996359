"""The wire's messages as frozen dataclasses of the same field names.

What a board says is not trusted: control characters, which could drive a terminal, are replaced, and numbers of
enumerations that nobody here knows become "unknown".
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints
from unicodedata import category

from google.protobuf.message import Message

from edgewright.errors import InputError

T = TypeVar("T")


def from_message(kind: type[T], message: Message, **given: Any) -> T:
    """Returns a `kind` with the message's fields of the same names, and those `given`.

    An absent optional field is None, bytes are hex, an enumeration's value is its word in lower case.
    """
    values = dict(given)
    for name, hint in _hints(kind).items():
        if name not in given:
            values[name] = _value(message, message.DESCRIPTOR.fields_by_name[name], hint)
    return kind(**values)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Raises InputError for a value that the wire can't carry: too large, of another type, or text that is no UTF-8."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise InputError(f"The board can't be asked for {what}: {error}. Correct that value.") from None


def printable(text: str) -> str:
    """Returns the text with control characters, but line ends and tabs, replaced by U+FFFD."""
    return "".join("\ufffd" if category(c) == "Cc" and c not in "\n\t" else c for c in text)


def _hints(kind: Any) -> Mapping[str, Any]:
    """Returns the types of the fields by name, remembered: resolving them is slow."""
    if kind not in _HINTS:
        hints = get_type_hints(kind)
        _HINTS[kind] = {each.name: hints[each.name] for each in fields(kind)}
    return _HINTS[kind]


_HINTS: dict[Any, Mapping[str, Any]] = {}


def _value(message: Message, field: Any, hint: Any) -> Any:
    value = getattr(message, field.name)
    if get_origin(hint) is tuple:
        items: Sequence[Any] = value
        return tuple(_single(item, field, get_args(hint)[0]) for item in items)
    if _is_optional(hint):
        if not message.HasField(field.name):
            return None
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    return _single(value, field, hint)


def _single(value: Any, field: Any, hint: Any) -> Any:
    if isinstance(value, Message):
        return from_message(hint, value)
    if isinstance(value, bytes):
        return value.hex()
    if field.enum_type is not None:
        return _word(field, value)
    return printable(value) if isinstance(value, str) else value


def _word(field: Any, number: int) -> str:
    """`PHASE_ROLLING_BACK` of the enumeration Phase as `rolling_back`."""
    named = field.enum_type.values_by_number.get(number)
    if named is None:
        return "unknown"
    common = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
    return str(named.name).removeprefix(common).lower()


def _is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
