"""Server-sent events of an OpenAI-compatible engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic_core import from_json

from edgewright_agent.engines.exchange import nonsense

DONE = b"data: [DONE]"


async def events(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Each event as it came, less the blank line that ends it."""
    pending = b""
    async with aclosing(pieces):
        async for piece in pieces:
            *whole, pending = (pending + piece).split(b"\n\n")
            for event in whole:
                yield event


def content(event: bytes) -> dict[str, Any] | None:
    """The JSON object in an event; None for the end of the stream and for comments. Raises OutsideError."""
    if not event.startswith(b"data: ") or event == DONE:
        return None
    try:
        found = from_json(event[6:])  # a third of what `json` takes, once per token
    except ValueError as error:
        raise nonsense(str(error)) from error
    if not isinstance(found, dict):
        raise nonsense(f"an event that holds {type(found).__name__}")
    return found
