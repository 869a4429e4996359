"""The files of an export that every engine needs, and what an export weighs."""

from __future__ import annotations

import shutil
from pathlib import Path

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
)


def copy_tokenizer(checkpoint: Path, tokenizer: Path) -> None:
    """What an engine needs to read and write text."""
    tokenizer.mkdir()
    for name in TOKENIZER_FILES:
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, tokenizer / name)


def size_of(export: Path) -> int:
    """Bytes of what is shipped of an export."""
    return sum(file.stat().st_size for part in ("engine", "tokenizer") for file in (export / part).iterdir())
