"""Reads a JSON body into a model, at a cost that is known before.

The event loop that reads it also carries everybody's tokens. What JSON costs to read grows with its values more than
with its bytes: `json.loads` takes up to 0.6 s for 4 MiB. So it is read in Rust, and bodies of too many values are not.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from edgewright_agent.openai_api.http.errors import ApiError

Model = TypeVar("Model", bound=BaseModel)
_PLAIN = bytes(set(range(256)) - set(b'",[{'))  # what neither separates values nor encloses text


def read_json(kind: type[Model], body: bytes, values_max: int) -> Model:
    """Returns the model in a body.

    Raises ApiError: 413 for more than about `values_max` values, 400 for what is no JSON object; ValidationError for
    fields that are wrong.
    """
    if _has_more_values(body, values_max):
        message = f"The body holds more than {values_max} JSON values; send less."
        raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", message)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] not in ("json_invalid", "model_type"):
            raise
        what = (
            f"no JSON ({first['ctx']['error']})" if first["type"] == "json_invalid" else "JSON, but no object"
        )
        raise ApiError(
            HTTPStatus.BAD_REQUEST, "invalid_json", f"The body is {what}; a JSON object is expected."
        ) from None


def _has_more_values(body: bytes, values_max: int) -> bool:
    """Whether commas and opening brackets outside strings are more than that. Strings are looked into when need be."""
    if _separators(body) <= values_max:
        return False
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _PLAIN)
    for _ in range(
        2
    ):  # two quotes side by side enclose nothing that counts: what is inside a string stays inside
        plain = plain.replace(b'""', b"")
    quotes_max = 4 * values_max  # two around a member's name, two around its value
    return plain.count(b'"') > quotes_max or _separators(b"".join(plain.split(b'"')[::2])) > values_max


def _separators(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")
