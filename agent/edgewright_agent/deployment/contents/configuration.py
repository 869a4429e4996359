"""Rules for configuration files: they may name no code, and no file outside the artifact."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

# `auto_map` makes transformers import Python of the checkpoint's; the others load libraries, or allow the first.
CODE_KEYS = {"auto_map", "custom_ops_library", "custom_op_library", "custom_pipelines", "trust_remote_code"}
FILE_KEY = re.compile(r"(^|[._-])(file|filename|path|folder|dir|directory|library)s?$", re.IGNORECASE)
# Where the model came from: transformers writes it, and nobody opens it.
ORIGIN_KEYS = {"_name_or_path", "name_or_path"}
# Texts, in which a slash is a slash.
TEXT_KEYS = re.compile(
    r"(^|_)(content|chat_template|template|tokens?|description|license\w*)$", re.IGNORECASE
)
OUTSIDE = re.compile(r"(/|~|\\\\|[A-Za-z]:[\\/]|file:)[^\s<>]+|(.*[\\/])?\.\.([\\/].*)?")
PATH_CHARACTERS_MAX = 4096

Names = Callable[
    [str], bool
]  # whether a relative path is one of the artifact's files beside the configuration


def complaint(content: Any, names: Names) -> str | None:
    """Returns what is wrong with a parsed configuration, for the end of a sentence; None if nothing is."""
    for key, value in _leaves(content, ""):
        name = key.rpartition(".")[2]
        if name in CODE_KEYS and value:
            return f"asks for code of its own ({key})"
        if not isinstance(value, str) or not value or name in ORIGIN_KEYS:
            continue
        if FILE_KEY.search(name) and not names(value):
            return f"names {value[:100]!r} ({key}), which is none of the artifact's files beside it"
        if _is_outside(name, value):
            return f"names {value[:100]!r} ({key}), which lies outside the artifact"
    return None


def plain_path(text: str) -> str | None:
    """Returns a relative path without `.`; None for one that leaves its folder."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        return None
    return str(path)


def _is_outside(name: str, value: str) -> bool:
    if TEXT_KEYS.search(name) or len(value) > PATH_CHARACTERS_MAX:
        return False
    return OUTSIDE.fullmatch(value) is not None


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yields every value that is no container, under its dotted key; one under a key for code as a whole."""
    if key.rpartition(".")[2] in CODE_KEYS:
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value
