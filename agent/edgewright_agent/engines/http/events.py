"""Server-sent events of an OpenAI-compatible engine."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

from pydantic_core import from_json

from edgewright_agent.engines.http.exchange import nonsense

DONE = b"data: [DONE]"


class EngineEvent(NamedTuple):
    """An event as it came, without the blank line that ends it, and when the engine made it."""

    raw: bytes
    arrived_seconds: float  # on the monotonic clock
    at_seconds: float | None = None  # the same; None: nobody says


class Content(NamedTuple):
    """The JSON object in an event, and when the engine made it, or when it arrived where nobody says."""

    chunk: dict[str, Any]
    at_seconds: float


async def events(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[list[EngineEvent], None]:
    """Yields events as they come, those together that come together."""
    pending, before_seconds = b"", None
    async with aclosing(pieces):
        async for piece in pieces:
            *whole, pending = (pending + piece).split(b"\n\n")
            if whole:
                now_seconds = time.monotonic()
                yield _spread([_event(raw, now_seconds) for raw in whole], before_seconds, now_seconds)
                before_seconds = now_seconds


def _spread(
    together: list[EngineEvent], before_seconds: float | None, now_seconds: float
) -> list[EngineEvent]:
    """Returns the events with times that lie evenly between two arrivals, where the engine names none.

    They waited in the socket (`READ_EVERY_SECONDS`): each came at some moment since the arrival before.
    """
    if before_seconds is None or len(together) == 1:
        return together
    step_seconds = (now_seconds - before_seconds) / len(together)
    return [
        event
        if event.at_seconds is not None
        else event._replace(at_seconds=before_seconds + place * step_seconds)
        for place, event in enumerate(together, start=1)
    ]


def _event(raw: bytes, arrived_seconds: float) -> EngineEvent:
    """Takes off the comment by which our worker says when it made a token (its `http/connection.py`)."""
    if raw.startswith(b": "):
        comment, _, rest = raw.partition(b"\n")
        with suppress(ValueError):  # another comment stays where it is
            return EngineEvent(rest, arrived_seconds, float(comment[2:]))
    return EngineEvent(raw, arrived_seconds)


def stamped(raw: bytes, at_seconds: float | None) -> bytes:
    """Returns the event with the comment that `_event` reads."""
    return raw if at_seconds is None else f": {at_seconds:.6f}\n".encode() + raw


def content(event: EngineEvent) -> dict[str, Any] | None:
    """Returns the JSON object in an event; None for the end of the stream and for comments. Raises OutsideError."""
    if not event.raw.startswith(b"data: ") or event.raw == DONE:
        return None
    try:
        chunk = from_json(event.raw[6:])  # a third of what `json` takes, once per token
    except ValueError as error:
        raise nonsense(str(error)) from error
    if not isinstance(chunk, dict):
        raise nonsense(f"an event that holds {type(chunk).__name__}")
    return chunk


async def contents(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[Content, None]:
    """Yields the JSON objects in a stream's events. Raises OutsideError."""
    async with aclosing(events(pieces)) as arrivals:
        async for together in arrivals:
            for event in together:
                if (chunk := content(event)) is not None:
                    # Timed when it is read, a first token may come after the next, which waited for it.
                    at_seconds = event.arrived_seconds if event.at_seconds is None else event.at_seconds
                    yield Content(chunk, at_seconds)
