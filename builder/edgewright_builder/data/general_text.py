"""General English that ships with the builder, so that training on a task need not forget everything else."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from edgewright.errors import InputError


def general_passages() -> tuple[str, ...]:
    """Returns 150 self-contained passages: articles, dialogues, letters, stories, sums, tables, code and chats.

    They were written for this project. Together they have 86 kB, about 20,000 tokens of SmolLM2's tokenizer. Their
    order is mixed, so the first n are a fair sample of all.
    """
    file = resources.files("edgewright_builder.data") / "general.txt"
    return _passages(file.read_text(encoding="utf-8"))


def read_passages(path: Path) -> tuple[str, ...]:
    """Returns the passages of a text file, which blank lines separate. Raises InputError if it can't be read."""
    try:
        return _passages(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} can't be read as text ({reason}); name a UTF-8 text file.") from None


def _passages(text: str) -> tuple[str, ...]:
    return tuple(passage for part in text.split("\n\n") if (passage := part.strip()))
