"""Relays the engine's answer to the client: it is measured, and passed on byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import aclosing
from http import HTTPStatus

from edgewright_agent.engines import Reply
from edgewright_agent.engines.http.events import content, events
from edgewright_agent.openai_api.http.asgi import Send, send_start, send_whole
from edgewright_agent.openai_api.http.errors import ApiError, engine_error
from edgewright_agent.openai_api.http.metering import StreamMeter, answer_in, measure_whole
from edgewright_agent.telemetry import RequestWindow

EVENT_STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache"}
_JSON = {"content-type": "application/json"}
_RELAYED_HEADERS = ("content-type", "retry-after")
_END_OF_EVENT = b"\n\n"


def is_stream(reply: Reply) -> bool:
    """Whether the engine answers with server-sent events."""
    kind = reply.headers.get("content-type", "")
    return reply.status == HTTPStatus.OK and kind.startswith("text/event-stream")


async def relay_whole(reply: Reply, window: RequestWindow | None, send: Send) -> None:
    """Sends the answer once its body is whole, so that an engine that dies half-way is an error, no torn answer."""
    body = await reply.read()
    if window is not None:
        measure_whole(reply.status, body, window)
    headers = {name: reply.headers[name] for name in _RELAYED_HEADERS if name in reply.headers}
    if reply.status >= HTTPStatus.BAD_REQUEST:
        headers, body = headers | _JSON, engine_error(reply.status, body)
    await send_whole(send, reply.status, headers, body)


async def relay_model(reply: Reply, name: str, send: Send) -> None:
    """Sends one model of the engine's list, or the engine's error. Raises ApiError (404)."""
    if reply.status != HTTPStatus.OK:
        await relay_whole(reply, None, send)
        return
    models = answer_in(await reply.read()).get("data", [])
    model = next((model for model in models if model["id"] == name), None)
    if model is None:
        served = ", ".join(model["id"] for model in models)
        message = f"There is no model {name[:100]!r} here; {served} is served."
        raise ApiError(HTTPStatus.NOT_FOUND, "model_not_found", message)
    await send_whole(send, HTTPStatus.OK, _JSON, json.dumps(model).encode())


async def relay_stream(reply: Reply, window: RequestWindow, send: Send, *, wants_usage: bool) -> None:
    """Sends events as they come, without the chunk that holds the counts unless the client wants it."""
    await send_start(send, reply.status, EVENT_STREAM)
    meter = StreamMeter(window)
    async with aclosing(events(reply.pieces)) as batches:
        async for batch in batches:
            outgoing: list[bytes] = []
            for event in batch:
                chunk = content(event)
                if chunk is None or meter.count(chunk, event.at_seconds) or wants_usage:
                    outgoing.append(event.raw)
            await send_events(send, outgoing)
    meter.end()
    await send({"type": "http.response.body", "body": b""})


async def end_with_error(send: Send, error: ApiError) -> None:
    """Ends a stream with an error event: its status line is sent, so the stream itself has to say what went wrong."""
    await send_events(send, [b"data: " + error.body])
    await send({"type": "http.response.body", "body": b""})


async def send_events(send: Send, outgoing: Iterable[bytes]) -> None:
    """Sends server-sent events, each without the blank line that ends it."""
    body = b"".join(event + _END_OF_EVENT for event in outgoing)
    await send({"type": "http.response.body", "body": body, "more_body": True})
