"""What the meter learns from an engine's chat completions and completions: tokens, their times, and why they ended."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import Any

from edgewright_agent.telemetry import RequestWindow


def measure_whole(status: int, body: bytes, window: RequestWindow) -> None:
    """Counts an answer that came in one piece.

    It does not show when its first token came: the request counts with its tokens and its duration only.
    """
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        window.reject("busy")
    elif HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        window.reject("invalid")
    elif status != HTTPStatus.OK:
        window.fail()
    else:
        answer = answer_in(body)
        usage = answer.get("usage") or {}
        window.end(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), finish_reason(answer))


class StreamMeter:
    """Counts the chunks of one stream."""

    def __init__(self, window: RequestWindow) -> None:
        self._window = window
        self._tokens = 0
        self._textless_at_seconds: float | None = None  # when the end came in a chunk without text
        self.usage: dict[str, Any] = {}
        self.reason: str | None = None

    def count(self, chunk: dict[str, Any], at_seconds: float | None) -> bool:
        """Counts one chunk; returns False for the one that holds nothing but the counts."""
        self.usage = chunk.get("usage") or self.usage
        self.reason = finish_reason(chunk) or self.reason
        if "error" in chunk:
            self._window.fail()
        elif brings_tokens(chunk):
            self._mark(chunk, at_seconds)
        elif chunk.get("usage") and not chunk.get("choices"):
            return False
        return True

    def _mark(self, chunk: dict[str, Any], at_seconds: float | None) -> None:
        """Marks a token. Whether an end without text is one, the counts say: llama.cpp's is not, our worker's is."""
        if finish_reason(chunk) is not None and not _text(chunk):
            self._textless_at_seconds = time.monotonic() if at_seconds is None else at_seconds
        else:
            self._tokens += 1
            self._window.token(at_seconds)

    def end(self) -> None:
        """Ends the request with what the stream has said about it."""
        if self._textless_at_seconds is not None and self.usage.get("completion_tokens", 0) > self._tokens:
            self._window.token(self._textless_at_seconds)
        self._window.end(self.usage.get("prompt_tokens", 0), self.usage.get("completion_tokens"), self.reason)


def brings_tokens(chunk: dict[str, Any]) -> bool:
    """Whether a chunk stands for tokens: all do but the one that only names the assistant's role, and the counts.

    llama.cpp's `return_progress` adds chunks that say how much of the prompt was read.
    A token may have no text: it can end inside a character or a stop string.
    """
    choices = chunk.get("choices")
    if not choices or "prompt_progress" in chunk:
        return False
    delta = choices[0].get("delta")
    opens = delta is not None and "role" in delta and not delta.get("content")
    return not opens or finish_reason(chunk) is not None


def _text(chunk: dict[str, Any]) -> str:
    choice = chunk["choices"][0]
    delta = choice.get("delta")
    return str((choice.get("text") if delta is None else delta.get("content")) or "")


def finish_reason(chunk: dict[str, Any]) -> str | None:
    """Returns why the first choice ended; None if it has not."""
    choices = chunk.get("choices")
    reason: str | None = choices[0].get("finish_reason") if choices else None
    return reason


def answer_in(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a body; an empty one if there is none."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
