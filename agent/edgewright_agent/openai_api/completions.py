"""The body of a completion on its way to the engine: it passes as it is, but a stream is asked for with its counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from edgewright_agent.openai_api.errors import ApiError


@dataclass(frozen=True)
class CompletionRequest:
    """A request as the engine gets it, and whether the client wants the chunk with the counts."""

    body: bytes
    wants_usage: bool


def parse_completion(body: bytes) -> CompletionRequest:
    """Returns the request in `body`, which stays as it is unless a stream would come without its counts.

    Raises ApiError (400) for what is no JSON object; the engine judges everything else.
    """
    fields = json_object(body)
    options = fields.get("stream_options") or {}
    if not fields.get("stream") or not isinstance(options, dict) or options.get("include_usage"):
        return CompletionRequest(body, wants_usage=True)
    fields["stream_options"] = {**options, "include_usage": True}
    return CompletionRequest(json.dumps(fields).encode(), wants_usage=False)


def json_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in `body`. Raises ApiError (400)."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"no JSON ({error})"
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", f"The body is {what}.") from None
    if not isinstance(value, dict):
        message = f"The body is a JSON {type(value).__name__}; an object is expected."
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", message)
    return value
