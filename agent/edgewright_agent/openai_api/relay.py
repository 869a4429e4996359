"""The engine's answer on its way to the client: measured, and passed on byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright_agent.engines import Reply
from edgewright_agent.engines.http.events import content, events
from edgewright_agent.openai_api.errors import DoorError, refusal_of
from edgewright_agent.openai_api.requests import Send
from edgewright_agent.telemetry import RequestWindow

_KEPT_HEADERS = ("content-type", "retry-after")
_END_OF_EVENT = b"\n\n"


async def send_whole(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    """An answer in one piece."""
    await _start(send, status, {**headers, "content-length": str(len(body))})
    await send({"type": "http.response.body", "body": body})


async def relay_whole(reply: Reply, window: RequestWindow | None, send: Send) -> None:
    """Waits for the whole body first, so that an engine that dies half-way is an error and no torn answer.

    When the first token came can't be seen from here: the request counts with its tokens and its duration only.
    """
    body = await reply.read()
    if window is not None:
        _measure(reply.status, body, window)
    kept = {name: reply.headers[name] for name in _KEPT_HEADERS if name in reply.headers}
    await send_whole(send, reply.status, kept, body)


async def relay_model(reply: Reply, name: str, send: Send) -> None:
    """One model of the list, since engines only give the whole, or the engine's refusal. Raises DoorError (404)."""
    if reply.status != HTTPStatus.OK:
        await relay_whole(reply, None, send)
        return
    models = _answer_of(await reply.read()).get("data", [])
    found = next((model for model in models if model["id"] == name), None)
    if found is None:
        served = ", ".join(model["id"] for model in models)
        message = f"There is no model {name[:100]!r} here; {served} is served."
        raise DoorError(HTTPStatus.NOT_FOUND, "model_not_found", message)
    await send_whole(send, HTTPStatus.OK, {"content-type": "application/json"}, json.dumps(found).encode())


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
    """Events as they come. The chunk with the counts is taken out unless the client wants it."""
    await _start(send, reply.status, {"content-type": "text/event-stream", "cache-control": "no-cache"})
    usage: dict[str, int] = {}
    reason: str | None = None
    async with aclosing(events(reply.pieces)) as coming:
        async for several in coming:
            kept: list[bytes] = []
            for event in several:
                found = content(event)
                if found is not None:
                    usage = found.get("usage") or usage
                    reason = _finish_reason(found) or reason
                    if "error" in found:
                        window.fail()
                    elif _brings_tokens(found):
                        window.token(event.at_seconds)
                    elif found.get("usage") and not found.get("choices") and not wants_usage:
                        continue
                kept.append(event.raw)
            await _send_events(send, kept)
    window.end(usage.get("prompt_tokens", 0), usage.get("completion_tokens"), reason)
    await send({"type": "http.response.body", "body": b""})


async def end_with_error(send: Send, error: EdgewrightError) -> None:
    """The status line of a stream is sent, so the stream itself has to say what went wrong."""
    await _send_events(send, [b"data: " + refusal_of(error).body])
    await send({"type": "http.response.body", "body": b""})


def _brings_tokens(event: dict[str, Any]) -> bool:
    """Whether a chunk stands for tokens: all but the one that only names the assistant's role, and the counts.

    A token may have no text: it can end inside a character or a stop string.
    """
    choices = event.get("choices")
    if not choices:
        return False
    delta = choices[0].get("delta")
    opens = delta is not None and "role" in delta and not delta.get("content")
    return not opens or _finish_reason(event) is not None


def _finish_reason(event: dict[str, Any]) -> str | None:
    """Why the first choice ended, if it has."""
    choices = event.get("choices")
    reason: str | None = choices[0].get("finish_reason") if choices else None
    return reason


def _answer_of(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _send_events(send: Send, events: Iterable[bytes]) -> None:
    body = b"".join(event + _END_OF_EVENT for event in events)
    await send({"type": "http.response.body", "body": body, "more_body": True})
