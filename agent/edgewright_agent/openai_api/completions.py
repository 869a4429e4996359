"""The body of a completion on its way to the engine: it passes as it is, but a stream is asked for with its counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgewright_agent.openai_api.http.json_body import read_json

VALUES_MAX = 256 * 1024  # a prompt may be given as tokens


@dataclass(frozen=True)
class CompletionRequest:
    """A request as the engine gets it, and whether the client wants the chunk with the counts."""

    body: bytes
    wants_usage: bool


class _StreamFields(BaseModel):
    model_config = ConfigDict(extra="ignore")

    stream: Any = None
    stream_options: Any = None


def parse_completion(body: bytes) -> CompletionRequest:
    """Returns the request in `body`, which stays as it is unless a stream would come without its counts.

    Raises ApiError for what is no JSON object; the engine judges everything else.
    """
    fields = read_json(_StreamFields, body, VALUES_MAX)
    options = fields.stream_options or {}
    if not fields.stream or not isinstance(options, dict) or options.get("include_usage"):
        return CompletionRequest(body, wants_usage=True)
    counted = json.dumps({**options, "include_usage": True}).encode()
    head = body[: body.rindex(b"}")]
    return CompletionRequest(
        head + b',"stream_options":' + counted + b"}", wants_usage=False
    )  # the last one counts
