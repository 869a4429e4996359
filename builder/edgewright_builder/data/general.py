"""General English that ships with the builder, so that training on a task need not forget everything else."""

from __future__ import annotations

from importlib import resources


def general_passages() -> tuple[str, ...]:
    """Returns 150 self-contained passages: articles, dialogues, letters, stories, sums, tables, code and chats.

    They were written for this project. Together they have 86 kB, about 20,000 tokens of SmolLM2's tokenizer. Their
    order is mixed, so the first n are a fair sample of all.
    """
    file = resources.files("edgewright_builder.data") / "general.txt"
    return tuple(file.read_text(encoding="utf-8").strip().split("\n\n"))
