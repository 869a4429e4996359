"""How generated steps become OpenAI's JSON: whole answers and stream chunks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from edgewright_agent.engine_worker.bodies import SamplingBody
from edgewright_agent.engine_worker.generation import Step


@dataclass(frozen=True)
class Shape:
    """What differs between the two routes."""

    id_prefix: str
    whole_object: str
    chunk_object: str
    whole_text: Callable[[str], dict[str, Any]]
    chunk_text: Callable[[str], dict[str, Any]]
    opening: dict[str, Any] | None  # of a choice, before the first token


COMPLETION = Shape(
    "cmpl",
    "text_completion",
    "text_completion",
    lambda text: {"text": text},
    lambda text: {"text": text},
    None,
)
CHAT = Shape(
    "chatcmpl",
    "chat.completion",
    "chat.completion.chunk",
    lambda text: {"message": {"role": "assistant", "content": text}},
    lambda text: {"delta": {"content": text}},
    {"delta": {"role": "assistant", "content": ""}},
)


@dataclass(frozen=True)
class Answer:
    """One answer on its way out."""

    shape: Shape
    model: str
    body: SamplingBody
    prompt_tokens: int

    async def whole(self, generated: AsyncGenerator[Step, None]) -> dict[str, Any]:
        """The answer without streaming."""
        async with aclosing(generated):
            steps = [step async for step in generated]
        text = self.shape.whole_text("".join(step.text for step in steps))
        choice = self._choice(text, steps, steps[-1].finish_reason)
        head = self._head(self.shape.whole_object)
        return head | {"choices": [choice], "usage": self._usage(len(steps))}

    async def events(self, generated: AsyncGenerator[Step, None]) -> AsyncGenerator[str, None]:
        """The answer as one JSON text per token."""
        head, count = self._head(self.shape.chunk_object), 0
        async with aclosing(generated):
            if self.shape.opening is not None:
                yield json.dumps(head | {"choices": [self._choice(self.shape.opening, (), None)]})
            async for step in generated:
                count += 1
                choice = self._choice(self.shape.chunk_text(step.text), (step,), step.finish_reason)
                yield json.dumps(head | {"choices": [choice]})
            if self.body.include_usage:
                yield json.dumps(head | {"choices": [], "usage": self._usage(count)})

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"{self.shape.id_prefix}-{uuid.uuid4().hex}"
        return {"id": name, "object": kind, "created": int(time.time()), "model": self.model}

    def _choice(
        self, text: dict[str, Any], steps: Sequence[Step], finish_reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, "logprobs": None, "finish_reason": finish_reason} | text
        if self.body.return_token_ids:
            choice["token_ids"] = [step.token for step in steps]
        return choice

    def _usage(self, generated_tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated_tokens,
            "total_tokens": self.prompt_tokens + generated_tokens,
        }
