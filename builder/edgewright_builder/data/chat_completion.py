"""What a chat completion says, in the shapes that servers write it: text or parts, with thoughts or without."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewright_builder.data.data_teacher import Completion, cut_at_stop

# Thoughts before the answer, as open models and their servers mark them. The opening mark may stand in the prompt.
_THOUGHTS = re.compile(
    r".*(?:</(?:seed:)?(?:think|thinking|thought|reasoning)>|\[/THINK\]|<\|channel\|>final<\|message\|>)",
    re.DOTALL | re.IGNORECASE,
)
_OPEN_THOUGHTS = re.compile(
    r"<(?:seed:)?(?:think|thinking|thought|reasoning)>|\[THINK\]|<\|channel\|>analysis", re.IGNORECASE
)
# Reasons to finish before the end of the text. `length` and `content_filter` are OpenAI's, the others of servers that
# hand on another interface's words.
_CUT_OFF = ("length", "content_filter", "max_tokens", "model_length", "error")
_TEXT_PARTS = ("text", "output_text", None)  # None: a part that names no type


@dataclass(frozen=True)
class Answer:
    """A completion, and whether the model only thought, so that it needs more room to answer."""

    completion: Completion
    only_thoughts: bool


def read_answer(value: dict[str, Any], stop: Sequence[str]) -> Answer:
    """Returns what the first choice says, without thoughts and cut before the first of `stop`.

    A choice without a text is an empty text. Raises ValueError where there is no choice.
    """
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"an answer without choices: {_error_of(value)}")
    choice = _object(choices[0])
    message, usage = _object(choice.get("message")), _object(value.get("usage"))
    written = _text(message.get("content") if message.get("content") is not None else choice.get("text"))
    text, open_thoughts = without_thoughts(written)
    thought = text != written.lstrip() or _thought_apart(message, usage)
    cut = cut_at_stop(text, stop)  # not every server knows `stop`
    text = (text if cut is None else cut).strip()
    complete = not open_thoughts and (cut is not None or not _was_cut_off(choice))
    tokens = _count(usage.get("completion_tokens"))
    return Answer(Completion(text, tokens, complete, _remark(message, choice, thought)), thought and not text)


def without_thoughts(text: str) -> tuple[str, bool]:
    """Returns (the text after the thoughts, whether thoughts began and did not end)."""
    text = _THOUGHTS.sub("", text, count=1)
    opening = _OPEN_THOUGHTS.search(text)
    if opening is not None:
        text = text[: opening.start()]
    return text.lstrip(), opening is not None


def _text(content: Any) -> str:
    """Returns the text of a message, its parts joined; what can't be written as UTF-8 is replaced."""
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    text = content if isinstance(content, str) else ""
    return text.encode("utf-8", "replace").decode()


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    return ""


def _was_cut_off(choice: dict[str, Any]) -> bool:
    return str(choice.get("finish_reason")).lower() in _CUT_OFF


def _thought_apart(message: dict[str, Any], usage: dict[str, Any]) -> bool:
    """Whether the server says that the model thought, in a field of its own or in the count of tokens."""
    if message.get("reasoning_content") or message.get("reasoning"):
        return True
    return _count(_object(usage.get("completion_tokens_details")).get("reasoning_tokens")) > 0


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 2**53 else 0  # not NaN, not infinite


def _remark(message: dict[str, Any], choice: dict[str, Any], thought: bool) -> str:
    """Returns why there may be no text, for the error that shows what T1 wrote."""
    if isinstance(message.get("refusal"), str):
        return f"it refused: {message['refusal']}"
    if thought:
        return "it only thought"
    return f"its finish_reason is {choice['finish_reason']!r}" if choice.get("finish_reason") else ""


def _error_of(value: dict[str, Any]) -> str:
    """Returns what the server says instead, as a rule in `error`."""
    return " ".join(str(value.get("error") or value).split())[:200]
