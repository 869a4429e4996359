"""Reads a request's body: bounded in bytes, in time, in what all requests together hold, and in what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

from edgewright.sizes import format_bytes
from edgewright_agent.openai_api.http.asgi import ClientGoneError, Receive, Scope, header
from edgewright_agent.openai_api.http.errors import ApiError
from edgewright_agent.runtime.threads import within

BODY_BYTES_MAX = 4 * 1024 * 1024  # a context of 128k tokens is about half a megabyte
BODIES_BYTES_MAX = 16 * 1024 * 1024  # of all requests that are being read or answered
BODY_SECONDS = 30.0
LARGE_BODY_BYTES = 256 * 1024
REFUSED_BYTES_PER_SECOND = 4 * 1024 * 1024
PAUSE_SECONDS_MAX = 5.0


class RefusedBodies:
    """Has large bodies wait after large ones were refused, whoever sent them: to refuse 4 MiB takes 30 ms of a core.

    A client that sends nonsense as fast as it is refused costs a few percent of a core then, however many connections
    it opens. Bodies of usual size never wait.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid_at = 0.0  # when the bodies refused so far are paid for

    def add(self, size_bytes: int) -> None:
        """Notes that a body of that size was refused."""
        if size_bytes > LARGE_BODY_BYTES:
            self._paid_at = max(self._clock(), self._paid_at) + size_bytes / REFUSED_BYTES_PER_SECOND

    def pause_seconds(self) -> float:
        """Returns how long a large body has to wait before it is read."""
        return min(max(0.0, self._paid_at - self._clock()), PAUSE_SECONDS_MAX)


class BodyBudget:
    """Counts the bytes of all bodies that are held at the moment."""

    def __init__(self) -> None:
        self._held_bytes = 0

    @contextlib.contextmanager
    def reserve(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that reserves so many more bytes; all of them are released at the end."""
        reserved_bytes = 0

        def reserve(count: int) -> None:
            nonlocal reserved_bytes
            if self._held_bytes + count > BODIES_BYTES_MAX:
                message = (
                    f"Requests of {format_bytes(BODIES_BYTES_MAX)} are being read already. Try again later."
                )
                headers = {"retry-after": "1"}
                raise ApiError(
                    HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded", message, headers=headers, close=True
                )
            reserved_bytes += count
            self._held_bytes += count

        try:
            yield reserve
        finally:
            self._held_bytes -= reserved_bytes


async def read_body(
    scope: Scope, receive: Receive, reserve: Callable[[int], None], refused: RefusedBodies
) -> bytes:
    """Returns the body. Raises ApiError: 413 as soon as it is known to be too long, 408, 429; and ClientGoneError."""
    declared = header(scope, b"content-length")
    if declared is not None and int(declared) > BODY_BYTES_MAX:  # the parser has let digits only through
        raise _too_large(f"{int(declared):,} bytes")
    try:
        return await within(BODY_SECONDS, _collect(receive, reserve, refused))
    except asyncio.TimeoutError:
        message = f"The body did not come within {BODY_SECONDS:g} s."
        raise ApiError(HTTPStatus.REQUEST_TIMEOUT, "timeout", message, close=True) from None


async def _collect(receive: Receive, reserve: Callable[[int], None], refused: RefusedBodies) -> bytes:
    body, more, has_waited = bytearray(), True, False
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece: bytes = message["body"]
        if len(body) + len(piece) > BODY_BYTES_MAX:
            refused.add(len(body))
            raise _too_large("more")
        if len(body) + len(piece) > LARGE_BODY_BYTES and not has_waited:
            has_waited = True
            await asyncio.sleep(refused.pause_seconds())
        reserve(len(piece))
        body += piece
        more = message["more_body"]
    return bytes(body)


def _too_large(what: str) -> ApiError:
    message = (
        f"The body has {what}; at most {BODY_BYTES_MAX:,} ({format_bytes(BODY_BYTES_MAX)}) are accepted."
    )
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", message, close=True)
