"""The ASGI application: OpenAI's routes, each relayed to the engine that serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from http import HTTPStatus
from typing import Any

from edgewright_agent.inference import Inference
from edgewright_agent.openai_api.access import check_key, check_origin
from edgewright_agent.openai_api.completions import parse_completion
from edgewright_agent.openai_api.connections import peer_of
from edgewright_agent.openai_api.http.asgi import ClientGoneError, Message, Receive, Scope, Send, send_whole
from edgewright_agent.openai_api.http.body import LARGE_BODY_BYTES, BodyBudget, RefusedBodies, read_body
from edgewright_agent.openai_api.http.errors import ApiError, to_api_error
from edgewright_agent.openai_api.http.relay import (
    end_with_error,
    is_stream,
    relay_model,
    relay_stream,
    relay_whole,
)
from edgewright_agent.openai_api.settings import OpenAISettings

# The engine has private routes too: what is not listed here is not served.
MODELS = "/v1/models"
RESPONSES = "/v1/responses"
ROUTES = {
    MODELS: "GET",
    f"{MODELS}/{{model}}": "GET",
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    RESPONSES: "POST",
}

REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class OpenAIApp:
    """Answers HTTP requests from `inference`."""

    def __init__(self, inference: Inference, settings: OpenAISettings) -> None:
        self._inference = inference
        self._settings = settings
        self._bodies = BodyBudget()
        self._refused = RefusedBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        try:
            await self._answer(scope, receive, send)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever fails, the client gets an error that it can read
            answer = to_api_error(error)
            headers = {"content-type": "application/json", **answer.headers}
            await send_whole(send, answer.status, headers, answer.body)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._settings.is_open_to_local_programs:
            check_origin(scope)
        check_key(scope, self._settings.key)
        path = _checked_route(scope)
        if path.startswith(MODELS):
            async with self._inference.ask(MODELS) as reply:
                name = path.removeprefix(f"{MODELS}/")
                await (relay_whole(reply, None, send) if path == MODELS else relay_model(reply, name, send))
            return
        with self._bodies.reserve() as reserve:
            body = await read_body(scope, receive, reserve, self._refused)
            client = peer_of(scope["client"])
            with self._noting_refusal(len(body), send) as noting:
                await _unless_gone(receive, self._complete(path, body, client, noting))

    @contextlib.contextmanager
    def _noting_refusal(self, body_bytes: int, send: Send) -> Iterator[Send]:
        """Gives a `send` that tells `RefusedBodies` if the body is refused, here or by the engine, or nobody waits."""

        async def noting(message: Message) -> None:
            if message.get("status") in REFUSALS:
                self._refused.add(body_bytes)
            await send(message)

        try:
            yield noting if body_bytes > LARGE_BODY_BYTES else send
        except ClientGoneError:
            self._refused.add(body_bytes)
            raise
        except ApiError as error:
            if error.status in REFUSALS:
                self._refused.add(body_bytes)
            raise

    async def _complete(self, path: str, body: bytes, client: str, send: Send) -> None:
        if path == RESPONSES:
            from edgewright_agent.openai_api.responses.answer import (
                answer_response,  # with the first such request
            )

            await answer_response(body, client, self._inference, send)
            return
        request, streaming = parse_completion(body), False
        try:
            async with self._inference.relay(path, request.body, client) as (reply, window):
                streaming = is_stream(reply)
                if streaming:
                    await relay_stream(reply, window, send, wants_usage=request.wants_usage)
                else:
                    await relay_whole(reply, window, send)
        except Exception as error:
            if not streaming:
                raise
            await end_with_error(send, to_api_error(error))


def _checked_route(scope: Scope) -> str:
    """Returns the path. Raises ApiError: 404, 405."""
    path, method = str(scope["path"]), scope["method"]
    route = f"{MODELS}/{{model}}" if path.startswith(f"{MODELS}/") else path
    if route not in ROUTES:
        message = f"There is no {path[:100]} here; there are {', '.join(ROUTES)}."
        raise ApiError(HTTPStatus.NOT_FOUND, "unknown_url", message)
    if method != ROUTES[route]:
        message = f"{route} takes {ROUTES[route]}, not {method}."
        headers = {"allow": ROUTES[route]}
        raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, headers=headers)
    return path


async def _unless_gone(receive: Receive, answering: Coroutine[Any, Any, None]) -> None:
    """Answers the request. A client that leaves cancels that, which frees its slot and the engine: ClientGoneError.

    Call this once the body is read: the next message is the disconnection.
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
