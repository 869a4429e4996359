"""How generated steps become OpenAI's JSON: whole answers and stream chunks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from edgewright_agent.engine_worker.batching.generation import Step
from edgewright_agent.engine_worker.batching.jobs import Job
from edgewright_agent.engine_worker.http.connection import ServerSentEvent
from edgewright_agent.engine_worker.model.backend import Text
from edgewright_agent.engine_worker.model.logprobs import (
    LogprobsShape,
    TextOffsets,
    chat_logprobs,
    completion_logprobs,
)
from edgewright_agent.engine_worker.requests.parse_request import GenerationTask

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Shape:
    """What differs between the two routes."""

    id_prefix: str
    whole_object: str
    chunk_object: str
    whole_text: Callable[[str], dict[str, Any]]
    chunk_text: Callable[[str], dict[str, Any]]
    opening: dict[str, Any] | None  # the first chunk's choice, before the first token
    logprobs: LogprobsShape


COMPLETION = Shape(
    "cmpl",
    "text_completion",
    "text_completion",
    lambda text: {"text": text},
    lambda text: {"text": text},
    None,
    completion_logprobs,
)
CHAT = Shape(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda text: {"message": {"role": "assistant", "content": text}},
    lambda text: {"delta": {"content": text}},
    {"delta": {"role": "assistant", "content": ""}},
    chat_logprobs,
)


@dataclass(frozen=True)
class AnswerWriter:
    """One answer to one request."""

    shape: Shape
    model: str
    task: GenerationTask
    job: Job
    text: Text

    async def whole(self, generated: AsyncGenerator[Sequence[Step], None]) -> dict[str, Any]:
        """Returns the answer without streaming."""
        async with aclosing(generated):
            steps = [step async for arrived in generated for step in arrived]
        text = self.shape.whole_text("".join(step.text for step in steps))
        choice = self._choice(text, steps, steps[-1].finish_reason, TextOffsets(self.text))
        head = self._head(self.shape.whole_object)
        return head | {"choices": [choice], "usage": self._usage(len(steps))}

    async def events(
        self, generated: AsyncGenerator[Sequence[Step], None]
    ) -> AsyncGenerator[list[ServerSentEvent], None]:
        """Yields the answer as one event per token, those together that come together."""
        head = _encode(self._head(self.shape.chunk_object))[:-1] + ',"choices":['
        count, offsets = 0, TextOffsets(self.text)
        async with aclosing(generated):
            if self.shape.opening is not None:
                opening = self._choice(self.shape.opening, (), None, offsets)
                yield [ServerSentEvent(f"{head}{_encode(opening)}]}}")]
            async for steps in generated:
                events = []
                for step in steps:
                    text = self.shape.chunk_text(step.text)
                    choice = self._choice(text, (step,), step.finish_reason, offsets)
                    events.append(ServerSentEvent(f"{head}{_encode(choice)}]}}", step.at_seconds))
                count += len(steps)
                yield events
            if self.task.include_usage:
                yield [ServerSentEvent(f'{head}],"usage":{_encode(self._usage(count))}}}')]

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"{self.shape.id_prefix}-{uuid.uuid4().hex}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.model}

    def _choice(
        self, text: dict[str, Any], steps: Sequence[Step], finish_reason: str | None, offsets: TextOffsets
    ) -> dict[str, Any]:
        reported = [(step.token, step.logprobs) for step in steps if step.logprobs is not None]
        logprobs = self.shape.logprobs(reported, self.text, offsets) if reported else None
        choice = {"index": 0, "logprobs": logprobs, "finish_reason": finish_reason} | text
        if self.task.return_token_ids:
            choice["token_ids"] = [step.token for step in steps]
        return choice

    def _usage(self, generated_tokens: int) -> dict[str, Any]:
        prompt_tokens = len(self.job.prompt)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": generated_tokens,
            "total_tokens": prompt_tokens + generated_tokens,
            "prompt_tokens_details": {"cached_tokens": self.job.cached_tokens},
        }
