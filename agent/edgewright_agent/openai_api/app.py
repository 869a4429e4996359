"""The ASGI application: OpenAI's routes, each relayed to the engine that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright_agent.inference import Inference
from edgewright_agent.openai_api.errors import DoorError, refusal_of
from edgewright_agent.openai_api.origin import check_neighbour
from edgewright_agent.openai_api.relay import (
    end_with_error,
    relay_model,
    relay_stream,
    relay_whole,
    send_whole,
)
from edgewright_agent.openai_api.requests import (
    BodyRoom,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    check_key,
    parse,
    read_body,
)
from edgewright_agent.openai_api.settings import DoorSettings

# The engine has private routes too: what is not here is not there.
MODELS = "/v1/models"
ROUTES = {
    MODELS: "GET",
    f"{MODELS}/{{model}}": "GET",
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
}


class Door:
    """Answers HTTP requests out of `inference`."""

    def __init__(self, inference: Inference, settings: DoorSettings) -> None:
        self._inference = inference
        self._settings = settings
        self._room = BodyRoom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self._answer(scope, receive, send)
        except ClientGoneError:
            return
        except (DoorError, EdgewrightError) as error:
            refusal = error if isinstance(error, DoorError) else refusal_of(error)
            headers = {"content-type": "application/json", **refusal.headers}
            await send_whole(send, refusal.status, headers, refusal.body)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._settings.is_for_neighbours:
            check_neighbour(scope)
        check_key(scope, self._settings.key)
        path = _checked_route(scope)
        if path.startswith(MODELS):
            async with self._inference.ask(MODELS) as reply:
                name = path.removeprefix(f"{MODELS}/")
                await (relay_whole(reply, None, send) if path == MODELS else relay_model(reply, name, send))
            return
        with self._room.hold() as take:
            body = await read_body(scope, receive, take)
            await _unless_gone(receive, self._complete(path, body, send))

    async def _complete(self, path: str, body: bytes, send: Send) -> None:
        asked, streaming = parse(body), False
        try:
            async with self._inference.relay(path, asked.body) as (reply, window):
                kind = reply.headers.get("content-type", "")
                streaming = reply.status == HTTPStatus.OK and kind.startswith("text/event-stream")
                if streaming:
                    await relay_stream(reply, window, send, wants_usage=asked.wants_usage)
                else:
                    await relay_whole(reply, window, send)
        except EdgewrightError as error:
            if not streaming:
                raise
            await end_with_error(send, error)


def _checked_route(scope: Scope) -> str:
    """The path. Raises DoorError: 404, 405."""
    path, method = str(scope["path"]), scope["method"]
    route = f"{MODELS}/{{model}}" if path.startswith(f"{MODELS}/") else path
    if route not in ROUTES:
        message = f"There is no {path[:100]} here; there are {', '.join(ROUTES)}."
        raise DoorError(HTTPStatus.NOT_FOUND, "unknown_url", message)
    if method != ROUTES[route]:
        message = f"{route} takes {ROUTES[route]}, not {method}."
        headers = {"allow": ROUTES[route]}
        raise DoorError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, headers=headers)
    return path


async def _unless_gone(receive: Receive, answering: Coroutine[Any, Any, None]) -> None:
    """Answers; a client that leaves cancels that, which frees its slot and the engine. Raises ClientGoneError then.

    To be called when the body was read: the next message is the disconnection.
    """
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(receive())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGoneError
        answer.result()
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)
