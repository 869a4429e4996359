"""Rows to learn from, one JSON object a line: Alpaca's (Taori et al., 2023), or chats as `messages`.

An Alpaca row has `instruction`, `input` and `output`, and as LLaMA-Factory writes them `system` and `history`, a list
of [question, answer]. A chat row has `messages` with roles `system`, `user` and `assistant`; its last answer is what
is learned. What a row holds is learned from or refused, never left out.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.data.messages import dialogue_of
from edgewright_builder.data.parsing import shown

# What other formats of training data put beside instruction and output, and would be lost here.
REFUSED = (
    "messages", "conversations", "conversation", "dialogue", "chat_history", "system_prompt", "system_message",
    "context", "documents", "passage", "reasoning", "reasoning_content", "thinking", "tools", "functions", "tool_calls",
    "function_call", "images", "image", "videos", "video", "audios", "audio",
)  # fmt: skip
SURROGATE_MARKS = (b"\\u", b"\xed")  # what a line with half a surrogate pair has: an escape, or such a byte
BESIDE_MESSAGES = (*REFUSED, "system", "history", "input", "output", "prompt", "completion", "response")


@dataclass(frozen=True)
class AlpacaRow:
    """One instruction with its optional input and the output to learn, and the dialogue before it."""

    instruction: str
    input: str
    output: str
    system: str = ""
    history: tuple[tuple[str, str], ...] = ()  # (question, answer) of each turn before

    @property
    def questions(self) -> list[str]:
        """What the user says, turn by turn; the last turn is instruction and input in one."""
        return [*(question for question, _ in self.history), f"{self.instruction} {self.input}".strip()]

    def values(self) -> dict[str, Any]:
        """Returns the row as `data.jsonl` holds it: without a dialogue the three fields of Alpaca."""
        values: dict[str, Any] = {
            "instruction": self.instruction,
            "input": self.input,
            "output": self.output,
        }
        if self.system:
            values["system"] = self.system
        if self.history:
            values["history"] = [list(turn) for turn in self.history]
        return values


def read_alpaca(path: Path) -> list[AlpacaRow]:
    """Returns the rows of a file. Blank lines are skipped and fields that nobody learns from are ignored.

    Raises InputError, with the line's number, for what is no JSON object, a missing field, an empty text, or a field
    that would have to be learned from and can't be.
    """
    return [_row(f"{path}, line {number}", value) for number, value in read_jsonl(path)]


def write_alpaca(rows: Iterable[AlpacaRow]) -> bytes:
    """Returns the file's bytes; equal rows give equal bytes."""
    return "".join(json.dumps(row.values(), ensure_ascii=False) + "\n" for row in rows).encode()


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) of each line that is not blank. Raises InputError as `read_alpaca` does.

    A key that stands twice is refused, as one of its values would be left out, and so is half a surrogate pair: no
    tokenizer takes it.
    """
    try:
        # Split at b"\n" only: a text may hold U+2028, which str.splitlines would split at.
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise InputError(
            f"Data file {path} cannot be read: {error.strerror}. Give the path of a .jsonl file."
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=partial(_object, f"{path}, line {number}"))
            if any(mark in line for mark in SURROGATE_MARKS):
                _require_text(f"{path}, line {number}", value)
        except (ValueError, RecursionError) as error:
            array = line.lstrip()[:1] == b"["
            hint = "Is the file one array? Write one object a line." if array else "Correct the line."
            raise InputError(
                f"{path}, line {number}: expected a JSON object, and this is no JSON ({error}). {hint}"
            ) from error
        if not isinstance(value, dict):
            raise InputError(
                f"{path}, line {number}: expected a JSON object, found {type(value).__name__}; write one object a line."
            )
        yield number, value


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where}: the key {shown(twice)} stands twice; remove one.")
    return value


def _require_text(where: str, value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: \\u{ord(error.object[error.start]):04x} is half a character; correct the program that wrote it."
        ) from None


def _row(where: str, value: dict[str, Any]) -> AlpacaRow:
    if "messages" in value and "instruction" not in value:
        dialogue = dialogue_of(where, value["messages"])
        _refuse(where, {name: held for name, held in value.items() if name != "messages"}, BESIDE_MESSAGES)
        return AlpacaRow(dialogue.question, "", dialogue.answer, dialogue.system, dialogue.history)
    _refuse(where, value, REFUSED)
    for name in ("instruction", "output"):
        if not isinstance(value.get(name), str) or not value[name].strip():
            raise InputError(
                f"{where}: expected a text in {name!r}, found {shown(value.get(name))}. A row has `instruction` and "
                "`output`, or `messages`."
            )
    return AlpacaRow(
        value["instruction"].strip(),
        _optional_text(where, value, "input"),
        value["output"].strip(),
        _optional_text(where, value, "system"),
        _history(where, value.get("history")),
    )


def _refuse(where: str, value: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if value.get(name):
            beside = "beside 'instruction' " if "instruction" in value else ""
            raise InputError(
                f"{where}: {name!r} {beside}would be left out of what is learned. Put it into `instruction`, `system` "
                "or `messages`, or remove it."
            )


def _optional_text(where: str, value: dict[str, Any], name: str) -> str:
    text = value.get(name) or ""
    if not isinstance(text, str):
        raise InputError(f"{where}: expected a text in {name!r}, found {shown(text)}. Correct or remove it.")
    return text.strip()


def _history(where: str, value: Any) -> tuple[tuple[str, str], ...]:
    turns = value or []
    if not isinstance(turns, list) or not all(_is_turn(turn) for turn in turns):
        raise InputError(
            f"{where}: expected a list of [question, answer] in 'history', found {shown(value)}. Correct or remove it."
        )
    return tuple((question.strip(), answer.strip()) for question, answer in turns)


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, list)
        and len(turn) == 2
        and all(isinstance(text, str) and text.strip() for text in turn)
    )
