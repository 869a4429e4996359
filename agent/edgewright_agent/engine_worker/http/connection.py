"""The client's side of a request: a bounded body, a stream of events, and noticing that the client is gone.

`ClientDisconnectedError` and `read` have twins in the agent's HTTP server: this process imports nothing of the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.requests.limits import RequestLimits
from edgewright_agent.engine_worker.requests.sizes import in_words

DISCARDED_BYTES_MAX = (
    16 * 1024 * 1024
)  # of a body that is too long: read so that its sender hears the refusal
logger = logging.getLogger(__name__)


class ClientDisconnectedError(Exception):
    """Nobody waits for the answer any more."""


class Bodies:
    """The bodies that are read or prepared at the moment, bounded one by one and in all."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._held_bytes = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[Body]:
        """Gives a place for one body; what it holds is given back at the end."""
        body = Body(self)
        try:
            yield body
        finally:
            self._held_bytes -= body.held_bytes

    def take(self, count: int) -> None:
        """Raises InvalidRequestError (429) if so many bytes more are too many."""
        if self._held_bytes + count > self._limits.bodies_bytes:
            raise InvalidRequestError(
                f"Bodies of {in_words(self._held_bytes)} are being prepared, and at most "
                f"{in_words(self._limits.bodies_bytes)} may; "
                "ask again later.",
                "overloaded",
                429,
            )
        self._held_bytes += count

    @property
    def body_bytes_max(self) -> int:
        """The most bytes of one body."""
        return self._limits.body_bytes


class Body:
    """One body's place among all of them."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.held_bytes = 0

    async def read(self, request: Request) -> bytearray:
        """Returns the request's body. Raises InvalidRequestError: 413 for one that is too long, 429 for all of them."""
        most, data, refusal, seen = self._bodies.body_bytes_max, bytearray(), None, 0
        async for piece in request.stream():
            seen += len(piece)
            if seen > DISCARDED_BYTES_MAX:
                break
            if refusal is None and seen > most:
                refusal = self._too_long(request, seen)
            elif refusal is None:
                refusal = self._refusal(len(piece))
            if refusal is None:
                data += piece
            else:
                data.clear()
        if refusal is not None:
            raise refusal
        return data

    def _refusal(self, count: int) -> InvalidRequestError | None:
        try:
            self._bodies.take(count)
        except InvalidRequestError as error:
            return error
        self.held_bytes += count
        return None

    def _too_long(self, request: Request, seen: int) -> InvalidRequestError:
        declared = request.headers.get("content-length", "")
        size = in_words(int(declared)) if declared.isdigit() else f"more than {in_words(seen)}"
        return InvalidRequestError(
            f"The body has {size}; at most {in_words(self._bodies.body_bytes_max)} are accepted, which "
            "suffices for any prompt that fits the context.",
            "body_too_large",
            413,
        )


@asynccontextmanager
async def cancelled_when_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancels what runs inside when the client closes its connection, and raises ClientDisconnectedError then.

    To be entered after the body was read: the next message is the disconnection.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = asyncio.ensure_future(receive())
    gone.add_done_callback(lambda done: None if done.cancelled() else task.cancel())
    try:
        yield
    except asyncio.CancelledError:
        if not gone.done():
            raise
        raise ClientDisconnectedError from None
    finally:
        gone.cancel()


@dataclass(frozen=True)
class ServerSentEvent:
    """One event. A comment before its data, which clients pass over, may say when a token was computed."""

    data: str
    at_seconds: float | None = None  # on the monotonic clock

    def __str__(self) -> str:
        """Returns the event as it is sent."""
        comment = "" if self.at_seconds is None else f": {self.at_seconds:.6f}\n"
        return f"{comment}data: {self.data}\n\n"


class EventStreamResponse(Response):
    """Server-sent events; their generator is closed as soon as the client is gone."""

    def __init__(self, events: AsyncGenerator[Sequence[ServerSentEvent], None]) -> None:
        super().__init__()
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends events as they come."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with cancelled_when_gone(receive), aclosing(self._events) as arrivals:
                async for events in arrivals:
                    await send(_body(*events))
            await send(_body(ServerSentEvent("[DONE]"), last=True))
        except ClientDisconnectedError:
            logger.debug("the client is gone")
        except InvalidRequestError as error:  # the status line is sent, so the stream has to say it
            await send(_body(_error_event(str(error), error.code, error.status), last=True))
        except Exception as error:
            logger.exception("generation failed")
            await send(_body(_error_event(str(error), "engine_failed", 500), last=True))


def _body(*events: ServerSentEvent, last: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": "".join(map(str, events)).encode(), "more_body": not last}


def _error_event(message: str, code: str, status: int) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(error_body(message, code, status)))


def error_body(message: str, code: str, status: int) -> dict[str, Any]:
    """Returns an error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


async def on_invalid_request(_: Request, error: Exception) -> Response:
    """Answers InvalidRequestError."""
    assert isinstance(error, InvalidRequestError)
    headers = {"retry-after": "1"} if error.status == 429 else None
    return JSONResponse(error_body(str(error), error.code, error.status), error.status, headers)


async def on_client_gone(_: Request, __: Exception) -> Response:
    """Answers nobody; 499 is what proxies log for a client that left."""
    return Response(status_code=499)


async def on_failure(_: Request, error: Exception) -> Response:
    """Answers whatever the engine raised."""
    logger.error("request failed", exc_info=error)
    return JSONResponse(error_body(f"The engine failed: {error}", "engine_failed", 500), 500)
