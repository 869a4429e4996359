"""A stream of the Responses API, made event by event from the chunks of the engine's chat completion."""

from __future__ import annotations

import json
from typing import Any

from edgewright_agent.openai_api.http.errors import ApiError
from edgewright_agent.openai_api.responses.objects import ResponseMaker, Status, status_of

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class EventMaker:
    """Makes the events of one response, numbered from 0. Each is returned without the blank line that ends it."""

    def __init__(self, maker: ResponseMaker) -> None:
        self._make = maker
        self._number = 0
        self._text: list[str] = []
        self._logprobs: list[Any] = []
        self._place = {"item_id": maker.item_id, "output_index": 0, "content_index": 0}
        # Made once: a delta is made for each token.
        self._delta_head = _encode({"type": "response.output_text.delta", **self._place})[:-1]

    def opening(self) -> list[bytes]:
        """Returns the events before the first token."""
        response, item = self._make.response("in_progress"), self._make.item("in_progress")
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
            self._event("response.output_item.added", output_index=0, item=item),
            self._event("response.content_part.added", **self._place, part=self._make.part("")),
        ]

    def deltas(self, chunk: dict[str, Any]) -> list[bytes]:
        """Returns the event of a chunk of the chat completion; none for one that brings no text."""
        choices = chunk.get("choices")
        text = (choices[0]["delta"].get("content") or "") if choices else ""
        logprobs = ((choices[0].get("logprobs") or {}).get("content") or []) if choices else []
        if not text and not logprobs:
            return []
        self._text.append(text)
        self._logprobs += logprobs
        told = f',"delta":{_encode(text)},"logprobs":{_encode(logprobs)},"sequence_number":{self._next()}}}'
        return [f"event: response.output_text.delta\ndata: {self._delta_head}{told}".encode()]

    def closing(self, finish_reason: str | None, usage: dict[str, Any]) -> list[bytes]:
        """Returns the events behind the last token."""
        status = status_of(finish_reason)
        part = self._make.part("".join(self._text), self._logprobs)
        item = self._make.item(status, [part])
        done = {**self._place, "text": part["text"], "logprobs": part["logprobs"]}
        response = self._make.response(status, [item], usage)
        return [
            self._event("response.output_text.done", **done),
            self._event("response.content_part.done", **self._place, part=part),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{status}", response=response),
        ]

    def failure(self, error: ApiError) -> list[bytes]:
        """Returns the events that end a stream whose engine has failed."""
        status: Status = "failed"
        item = self._make.item("incomplete", [self._make.part("".join(self._text), self._logprobs)])
        told = {"code": "server_error", "message": str(error)}
        flat = {"code": error.code, "message": str(error), "param": None}
        return [
            # The official clients look for `error` within, the reference names the fields beside it.
            self._event("error", **flat, error=json.loads(error.body)["error"]),
            self._event("response.failed", response=self._make.response(status, [item], error=told)),
        ]

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _encode({"type": kind, **fields, "sequence_number": self._next()})
        return f"event: {kind}\ndata: {data}".encode()

    def _next(self) -> int:
        number = self._number
        self._number += 1
        return number
