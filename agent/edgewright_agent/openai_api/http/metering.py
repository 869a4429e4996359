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
    """Counts the chunks of one stream. Its answers, of which vLLM gives several, are told apart by `index`."""

    def __init__(self, window: RequestWindow) -> None:
        self._window = window
        self._tokens = 0
        self._seen: set[int] = set()  # the answers that had a chunk
        self._begun: set[int] = set()  # those of them that had a token
        self._textless_at_seconds: dict[int, float] = {}  # when an answer's end came in a chunk without text
        self.usage: dict[str, Any] = {}
        self.reason: str | None = None

    def count(self, chunk: dict[str, Any], at_seconds: float | None) -> bool:
        """Counts one chunk; returns False for the one that holds nothing but the counts."""
        self.usage = chunk.get("usage") or self.usage
        self.reason = finish_reason(chunk) or self.reason
        if "error" in chunk:
            self._window.fail()
        elif chunk.get("usage") and not chunk.get("choices"):
            return False
        elif "prompt_progress" not in chunk:  # llama.cpp's `return_progress`: how much of the prompt was read
            for choice in chunk.get("choices") or ():
                self._count_choice(choice, at_seconds)
        return True

    def _count_choice(self, choice: dict[str, Any], at_seconds: float | None) -> None:
        """Marks a token. Whether an end without text is one, the counts say: llama.cpp's is not, our worker's is."""
        answer = choice.get("index", 0)
        self._seen.add(answer)
        if not _brings_tokens(choice):
            return
        if choice.get("finish_reason") is not None and not _text(choice):
            self._textless_at_seconds[answer] = time.monotonic() if at_seconds is None else at_seconds
        else:
            self._mark(answer, at_seconds)

    def _mark(self, answer: int, at_seconds: float | None) -> None:
        self._tokens += 1
        self._begun.add(answer)
        self._window.token(at_seconds, answer)

    def end(self) -> None:
        """Ends the request with what the stream has said about it."""
        generated_tokens = self.usage.get("completion_tokens")
        shares_known = self._share_out(self._tokens if generated_tokens is None else generated_tokens)
        self._window.end(
            self.usage.get("prompt_tokens", 0), generated_tokens, self.reason, shares_known=shares_known
        )

    def _share_out(self, generated_tokens: int) -> bool:
        """Marks the ends that were tokens. Returns whether each answer's share of the tokens is known then."""
        rest = generated_tokens - self._tokens
        ends_count = rest >= len(self._textless_at_seconds)
        if ends_count:
            for answer, at_seconds in self._textless_at_seconds.items():
                self._mark(answer, at_seconds)
        if len(self._seen) < 2:
            return True
        return rest == 0 or (ends_count and self._begun == self._seen)


def _brings_tokens(choice: dict[str, Any]) -> bool:
    """Whether a chunk's choice stands for tokens: all do but the one that only names the assistant's role.

    A token may have no text: it can end inside a character or a stop string.
    """
    delta = choice.get("delta")
    opens = delta is not None and "role" in delta and not delta.get("content")
    return not opens or choice.get("finish_reason") is not None


def _text(choice: dict[str, Any]) -> str:
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
