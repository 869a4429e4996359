"""Response objects: what `/v1/responses` answers, made from the request and the engine's chat completion."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgewright_agent.openai_api.responses.request import ResponsesRequest

Status = Literal["in_progress", "completed", "incomplete", "failed"]


@dataclass(frozen=True)
class ResponseMaker:
    """Makes the objects of one response."""

    request: ResponsesRequest
    model: str
    response_id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    item_id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))

    def part(self, text: str, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
        """Returns the one part of the answer's message."""
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}

    def item(self, status: Status, parts: Sequence[Any] = ()) -> dict[str, Any]:
        """Returns the answer's message."""
        return {
            "id": self.item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": list(parts),
        }

    def response(
        self,
        status: Status,
        items: Sequence[Any] = (),
        usage: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Returns the whole response, with the settings that were used. `usage`: of the chat completion."""
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": error,
            "incomplete_details": incomplete,
            "model": self.model,
            "output": list(items),
            "usage": None if usage is None else usage_of(usage),
            **self._settings(),
        }

    def _settings(self) -> dict[str, Any]:
        """Returns the settings that were used: the request's, and those that this server has no choice of."""
        request, reasoning = self.request, self.request.reasoning
        return {
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "top_logprobs": request.top_logprobs or 0,
            "text": {"format": request.format.model_dump(by_alias=True, exclude_none=True)},
            "metadata": request.metadata or {},
            "user": request.user,
            "safety_identifier": request.safety_identifier,
            "prompt_cache_key": request.prompt_cache_key,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "tool_choice": request.tool_choice or "auto",
            "tools": [],
            "reasoning": {"effort": reasoning and reasoning.effort, "summary": None},
            "truncation": "disabled",
            "background": False,
            "previous_response_id": None,
            "store": False,
        }


def status_of(finish_reason: str | None) -> Status:
    """Returns how a response ended whose chat completion ended so."""
    return "incomplete" if finish_reason == "length" else "completed"


def usage_of(usage: dict[str, Any]) -> dict[str, Any]:
    """Returns a chat completion's counts under the names of the Responses API."""
    cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
