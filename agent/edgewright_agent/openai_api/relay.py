"""Relays the engine's answer to the client: it is measured, and passed on byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from edgewright_agent.engines import Reply
from edgewright_agent.engines.http.events import content, events
from edgewright_agent.openai_api.asgi import Send, send_start, send_whole
from edgewright_agent.openai_api.errors import ApiError, engine_error
from edgewright_agent.telemetry import RequestWindow

_RELAYED_HEADERS = ("content-type", "retry-after")
_END_OF_EVENT = b"\n\n"


async def relay_whole(reply: Reply, window: RequestWindow | None, send: Send) -> None:
    """Sends the answer once its whole body is here, so that an engine that dies half-way is an error, no torn answer.

    Such an answer does not show when its first token came: the request counts with its tokens and duration only.
    """
    body = await reply.read()
    if window is not None:
        _measure(reply.status, body, window)
    headers = {name: reply.headers[name] for name in _RELAYED_HEADERS if name in reply.headers}
    if reply.status >= HTTPStatus.BAD_REQUEST:
        headers["content-type"], body = "application/json", engine_error(reply.status, body)
    await send_whole(send, reply.status, headers, body)


async def relay_model(reply: Reply, name: str, send: Send) -> None:
    """Sends one model of the engine's list, or the engine's error. Raises ApiError (404)."""
    if reply.status != HTTPStatus.OK:
        await relay_whole(reply, None, send)
        return
    models = _answer_of(await reply.read()).get("data", [])
    model = next((model for model in models if model["id"] == name), None)
    if model is None:
        served = ", ".join(model["id"] for model in models)
        message = f"There is no model {name[:100]!r} here; {served} is served."
        raise ApiError(HTTPStatus.NOT_FOUND, "model_not_found", message)
    await send_whole(send, HTTPStatus.OK, {"content-type": "application/json"}, json.dumps(model).encode())


def _measure(status: int, body: bytes, window: RequestWindow) -> None:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        window.reject("busy")
    elif HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        window.reject("invalid")
    elif status != HTTPStatus.OK:
        window.fail()
    else:
        answer = _answer_of(body)
        usage = answer.get("usage") or {}
        window.end(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), _finish_reason(answer))


async def relay_stream(reply: Reply, window: RequestWindow, send: Send, *, wants_usage: bool) -> None:
    """Sends events as they come, without the chunk that holds the counts unless the client wants it."""
    await send_start(send, reply.status, {"content-type": "text/event-stream", "cache-control": "no-cache"})
    usage: dict[str, int] = {}
    reason: str | None = None
    async with aclosing(events(reply.pieces)) as batches:
        async for batch in batches:
            outgoing: list[bytes] = []
            for event in batch:
                chunk = content(event)
                if chunk is not None:
                    usage = chunk.get("usage") or usage
                    reason = _finish_reason(chunk) or reason
                    if "error" in chunk:
                        window.fail()
                    elif _brings_tokens(chunk):
                        window.token(event.at_seconds)
                    elif chunk.get("usage") and not chunk.get("choices") and not wants_usage:
                        continue
                outgoing.append(event.raw)
            await _send_events(send, outgoing)
    window.end(usage.get("prompt_tokens", 0), usage.get("completion_tokens"), reason)
    await send({"type": "http.response.body", "body": b""})


async def end_with_error(send: Send, error: ApiError) -> None:
    """Ends a stream with an error event: its status line is sent, so the stream itself has to say what went wrong."""
    await _send_events(send, [b"data: " + error.body])
    await send({"type": "http.response.body", "body": b""})


def _brings_tokens(chunk: dict[str, Any]) -> bool:
    """Whether a chunk stands for tokens: all do but the one that only names the assistant's role, and the counts.

    A token may have no text: it can end inside a character or a stop string.
    """
    choices = chunk.get("choices")
    if not choices:
        return False
    delta = choices[0].get("delta")
    opens = delta is not None and "role" in delta and not delta.get("content")
    return not opens or _finish_reason(chunk) is not None


def _finish_reason(chunk: dict[str, Any]) -> str | None:
    """Returns why the first choice ended; None if it has not."""
    choices = chunk.get("choices")
    reason: str | None = choices[0].get("finish_reason") if choices else None
    return reason


def _answer_of(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


async def _send_events(send: Send, events: Iterable[bytes]) -> None:
    body = b"".join(event + _END_OF_EVENT for event in events)
    await send({"type": "http.response.body", "body": body, "more_body": True})
