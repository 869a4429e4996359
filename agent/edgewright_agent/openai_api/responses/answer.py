"""Answers a request of the Responses API with the engine's chat completion, whole or as a stream."""

from __future__ import annotations

import json
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import Reply
from edgewright_agent.engines.http.events import content, events
from edgewright_agent.inference import Inference
from edgewright_agent.openai_api.http.asgi import Send, send_start, send_whole
from edgewright_agent.openai_api.http.errors import ApiError, engine_error, to_api_error
from edgewright_agent.openai_api.http.metering import StreamMeter, answer_in, measure_whole
from edgewright_agent.openai_api.http.relay import EVENT_STREAM, is_stream, send_events
from edgewright_agent.openai_api.responses.events import EventMaker
from edgewright_agent.openai_api.responses.objects import ResponseMaker, status_of
from edgewright_agent.openai_api.responses.request import ResponsesRequest, parse_request
from edgewright_agent.telemetry import RequestWindow

CHAT = "/v1/chat/completions"
_JSON = {"content-type": "application/json"}
# The engine names fields of the chat completion, which the client has not sent.
_FIELDS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
}


async def answer_response(body: bytes, client: str, inference: Inference, send: Send) -> None:
    """Answers the request in a body. Raises ApiError for a wrong one; raises as `Inference.relay`."""
    request, stream = parse_request(body), None
    try:
        chat = json.dumps(request.as_chat()).encode()
        async with inference.relay(CHAT, chat, client) as (reply, window):
            if is_stream(reply):
                stream = ResponseStream(request, send)
                await stream.relay(reply, window)
            else:
                await _answer_whole(request, reply, window, send)
    except Exception as error:
        if stream is None:
            raise
        await stream.fail(to_api_error(error))


async def _answer_whole(request: ResponsesRequest, reply: Reply, window: RequestWindow, send: Send) -> None:
    body = await reply.read()
    measure_whole(reply.status, body, window)
    headers = dict(_JSON)
    if reply.status == HTTPStatus.OK:
        body = json.dumps(_response(request, answer_in(body))).encode()
    else:
        body = _with_our_field(engine_error(reply.status, body))
        headers |= {"retry-after": reply.headers["retry-after"]} if "retry-after" in reply.headers else {}
    await send_whole(send, reply.status, headers, body)


def _response(request: ResponsesRequest, completion: dict[str, Any]) -> dict[str, Any]:
    choice = completion["choices"][0]
    status = status_of(choice["finish_reason"])
    make = ResponseMaker(request, completion["model"])
    part = make.part(choice["message"]["content"] or "", (choice.get("logprobs") or {}).get("content") or ())
    return make.response(status, [make.item(status, [part])], completion["usage"])


def _with_our_field(body: bytes) -> bytes:
    """Names the field of the Responses API in an error that begins with the chat completion's."""
    answer = json.loads(body)
    message = str(answer["error"]["message"])
    for theirs, ours in _FIELDS.items():
        if message.startswith((f"{theirs}.", f"{theirs}:")):
            answer["error"]["message"] = ours + message.removeprefix(theirs)
            break
    return json.dumps(answer).encode()


class ResponseStream:
    """One response as events; an engine that fails on the way ends them with an error."""

    def __init__(self, request: ResponsesRequest, send: Send) -> None:
        self._request = request
        self._send = send
        self._events: EventMaker | None = None  # once the engine has named its model

    async def relay(self, reply: Reply, window: RequestWindow) -> None:
        """Sends events as tokens come. Raises OutsideError if the engine fails."""
        await send_start(self._send, HTTPStatus.OK, EVENT_STREAM)
        meter = StreamMeter(window)
        async with aclosing(events(reply.pieces)) as batches:
            async for batch in batches:
                outgoing: list[bytes] = []
                for event in batch:
                    chunk = content(event)
                    if chunk is not None:
                        meter.count(chunk, event.at_seconds)
                        outgoing += self._made_of(chunk)
                if outgoing:
                    await send_events(self._send, outgoing)
        if self._events is None or not meter.usage:
            raise OutsideError(
                "The engine ended its stream without counts; try again.", Reason.REASON_ENGINE_FAILED
            )
        meter.end()
        await self._end(self._events.closing(meter.reason, meter.usage))

    async def fail(self, error: ApiError) -> None:
        """Ends the events with an error."""
        made = self._events or EventMaker(ResponseMaker(self._request, self._request.model or ""))
        await self._end(made.failure(error))

    def _made_of(self, chunk: dict[str, Any]) -> list[bytes]:
        if "error" in chunk:
            raise OutsideError(str(chunk["error"]["message"]), Reason.REASON_ENGINE_FAILED)
        if self._events is not None:
            return self._events.deltas(chunk)
        self._events = EventMaker(ResponseMaker(self._request, chunk["model"]))
        return self._events.opening() + self._events.deltas(chunk)

    async def _end(self, outgoing: list[bytes]) -> None:
        await send_events(self._send, outgoing)
        await self._send({"type": "http.response.body", "body": b""})
