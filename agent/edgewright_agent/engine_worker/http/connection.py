"""The client's side of a request: a bounded body, a stream of events, and noticing that the client is gone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edgewright_agent.engine_worker.backend import InvalidRequestError

BODY_BYTES_MAX = 8 * 1024 * 1024
logger = logging.getLogger(__name__)


class ClientDisconnectedError(Exception):
    """Nobody waits for the answer any more."""


async def read_body(request: Request) -> bytes:
    """The request's body; raises InvalidRequestError (413) as soon as it is known to be too long."""
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if not declared.isdigit() or int(declared) <= BODY_BYTES_MAX:
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_BYTES_MAX:
                break
        else:
            return bytes(body)
    size = declared if not body else f"more than {BODY_BYTES_MAX}"
    raise InvalidRequestError(
        f"The body has {size} bytes; at most {BODY_BYTES_MAX} are accepted.", "body_too_large", 413
    )


@asynccontextmanager
async def cancelled_when_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancel what runs inside when the client closes its connection, and raise ClientDisconnectedError then.

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
    """A server-sent event. What made it may say when, in a comment before the data that clients pass over."""

    data: str
    at_seconds: float | None = None  # on the monotonic clock

    def __str__(self) -> str:
        """Returns the event as it travels."""
        comment = "" if self.at_seconds is None else f": {self.at_seconds:.6f}\n"
        return f"{comment}data: {self.data}\n\n"


class EventStreamResponse(Response):
    """Server-sent events; their generator is closed as soon as the client is gone."""

    def __init__(self, events: AsyncGenerator[Sequence[ServerSentEvent], None]) -> None:
        super().__init__()
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events as they come."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with cancelled_when_gone(receive), aclosing(self._events) as events:
                async for several in events:
                    await send(_body(*several))
            await send(_body(ServerSentEvent("[DONE]"), last=True))
        except ClientDisconnectedError:
            logger.debug("the client is gone")
        except Exception as error:  # the status line is sent, so the stream has to say it
            logger.exception("generation failed")
            await send(
                _body(ServerSentEvent(json.dumps(error_body(str(error), "engine_failed", 500))), last=True)
            )


def _body(*events: ServerSentEvent, last: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": "".join(map(str, events)).encode(), "more_body": not last}


def error_body(message: str, code: str, status: int) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


async def on_invalid_request(_: Request, error: Exception) -> Response:
    """The answer to InvalidRequestError."""
    assert isinstance(error, InvalidRequestError)
    headers = {"retry-after": "1"} if error.status == 429 else None
    return JSONResponse(error_body(str(error), error.code, error.status), error.status, headers)


async def on_client_gone(_: Request, __: Exception) -> Response:
    """Nobody reads this; 499 is what proxies log for it."""
    return Response(status_code=499)


async def on_failure(_: Request, error: Exception) -> Response:
    """The answer to whatever the engine raised."""
    logger.error("request failed", exc_info=error)
    return JSONResponse(error_body(f"The engine failed: {error}", "engine_failed", 500), 500)
