"""Chats as data sets write them: `messages` of roles and texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.data.parsing import shown

# What a message may hold beside its text that is part of what is said, and could not be learned here.
UNLEARNED = (
    "tool_calls", "function_call", "tool_call_id", "name", "reasoning", "reasoning_content", "thinking", "refusal",
    "images", "audio",
)  # fmt: skip


@dataclass(frozen=True)
class Dialogue:
    """A chat whose last answer is to be learned."""

    system: str
    history: tuple[tuple[str, str], ...]  # (question, answer) of each turn before the last
    question: str
    answer: str


def dialogue_of(where: str, messages: Any) -> Dialogue:
    """Returns the chat in `messages`.

    Raises InputError unless the messages are texts, at most one `system` first, then `user` and `assistant` in turns.
    """
    if not isinstance(messages, list) or not messages:
        raise InputError(
            f"{where}: expected a list of messages in 'messages', found {shown(messages)}. Correct the row."
        )
    first = 1 if isinstance(messages[0], dict) and messages[0].get("role") == "system" else 0
    roles = ["system"] * first + [("user", "assistant")[i % 2] for i in range(len(messages) - first)]
    texts = [
        _text(f"{where}: messages[{i}]", message, role)
        for i, (message, role) in enumerate(zip(messages, roles, strict=True))
    ]
    turns = texts[first:]
    if not turns or len(turns) % 2:
        raise InputError(
            f"{where}: 'messages' ends with {roles[-1]!r}; the last message must be the assistant's, which is learned. "
            "Cut or remove the row."
        )
    if messages[-1].get("weight") == 0:  # as OpenAI's data for fine-tuning mark an answer
        raise InputError(
            f"{where}: the last answer, which would be learned, has the weight 0. Cut the row after another one."
        )
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    question, answer = pairs[-1]
    return Dialogue(texts[0] if first else "", tuple(pairs[:-1]), question, answer)


def _text(where: str, message: Any, role: str) -> str:
    if not isinstance(message, dict) or message.get("role") != role:
        actual = message.get("role") if isinstance(message, dict) else message
        raise InputError(
            f"{where} must be the {role}'s, found {shown(actual)}. A chat is `system` or nothing, then `user` and "
            "`assistant` in turns."
        )
    for name in UNLEARNED:
        if message.get(name):
            raise InputError(f"{where} has {name!r}, which can't be learned. Remove it, or the row.")
    text = _joined(message.get("content"))
    if not text:
        raise InputError(
            f"{where}: expected a text in 'content', found {shown(message.get('content'))}. "
            "Correct or remove the row."
        )
    return text


def _joined(content: Any) -> str:
    """Returns the text; of a list of text parts all of them, each on a line. Empty for anything else."""
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") if isinstance(part, dict) else None for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts).strip() if len(texts) == len(parts) else ""
