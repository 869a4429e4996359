"""Reading a request: bounded in size before it is read, in time while it is, and in what all of them hold at once."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from edgewright_agent.openai_api.errors import DoorError
from edgewright_agent.runtime.threads import within

BODY_BYTES_MAX = 4 * 1024 * 1024  # a context of 128k tokens is about half a megabyte
BODIES_BYTES_MAX = 16 * 1024 * 1024  # of all requests that are being read or answered
BODY_SECONDS = 30.0

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = dict[str, Any]


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class BodyRoom:
    """How many bytes of bodies are held at the moment."""

    def __init__(self) -> None:
        self._held_bytes = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """A function that takes so many bytes more; all are given back at the end."""
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self._held_bytes + count > BODIES_BYTES_MAX:
                message = f"Requests of {BODIES_BYTES_MAX} bytes are being read already. Try again later."
                headers = {"retry-after": "1"}
                raise DoorError(
                    HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded", message, headers=headers, close=True
                )
            mine += count
            self._held_bytes += count

        try:
            yield take
        finally:
            self._held_bytes -= mine


def header(scope: Scope, name: bytes) -> bytes | None:
    """The header's value; names are in lower case."""
    return next((value for key, value in scope["headers"] if key == name), None)


def check_key(scope: Scope, key: str | None) -> None:
    """Raises DoorError (401) unless the request brings the key, if one is needed."""
    if key is None:
        return
    brought = header(scope, b"authorization") or b""
    if not hmac.compare_digest(brought, f"Bearer {key}".encode()):
        message = "The API key is missing or wrong; send `Authorization: Bearer KEY`."
        raise DoorError(
            HTTPStatus.UNAUTHORIZED, "invalid_api_key", message, headers={"www-authenticate": "Bearer"}
        )


async def read_body(scope: Scope, receive: Receive, take: Callable[[int], None]) -> bytes:
    """The body. Raises DoorError: 413 as soon as it is known to be too long, 408, 429; and ClientGoneError."""
    declared = header(scope, b"content-length")
    if declared is not None and int(declared) > BODY_BYTES_MAX:  # the parser has let digits only through
        raise _too_large(f"{int(declared)} bytes")
    try:
        return await within(BODY_SECONDS, _collect(receive, take))
    except asyncio.TimeoutError:
        message = f"The body did not come within {BODY_SECONDS:g} s."
        raise DoorError(HTTPStatus.REQUEST_TIMEOUT, "timeout", message, close=True) from None


async def _collect(receive: Receive, take: Callable[[int], None]) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece: bytes = message["body"]
        if len(body) + len(piece) > BODY_BYTES_MAX:
            raise _too_large("more")
        take(len(piece))
        body += piece
        more = message["more_body"]
    return bytes(body)


def _too_large(what: str) -> DoorError:
    message = f"The body has {what}; at most {BODY_BYTES_MAX} bytes are accepted."
    return DoorError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", message, close=True)


@dataclass(frozen=True)
class Asked:
    """A request as the engine gets it, and whether the client wants the chunk with the counts."""

    body: bytes
    wants_usage: bool


def parse(body: bytes) -> Asked:
    """The request in `body`, which stays as it is unless a stream would come without its counts.

    Raises DoorError (400) for what is no JSON object; all else is for the engine to judge.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"no JSON ({error})"
        raise DoorError(HTTPStatus.BAD_REQUEST, "invalid_json", f"The body is {what}.") from None
    if not isinstance(asked, dict):
        message = f"The body is a JSON {type(asked).__name__}; an object is expected."
        raise DoorError(HTTPStatus.BAD_REQUEST, "invalid_json", message)
    options = asked.get("stream_options") or {}
    if not asked.get("stream") or not isinstance(options, dict) or options.get("include_usage"):
        return Asked(body, wants_usage=True)
    asked["stream_options"] = {**options, "include_usage": True}
    return Asked(json.dumps(asked).encode(), wants_usage=False)
