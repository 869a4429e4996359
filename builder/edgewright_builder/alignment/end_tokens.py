"""Which tokens end a turn or a text, as a model's files say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewright_builder.alignment.vocabulary import Vocabulary


def end_tokens(folder: Path, vocabulary: Vocabulary) -> frozenset[int]:
    """Returns the end tokens that the model's generation settings, configuration or tokenizer name."""
    ids = {
        token
        for name in ("generation_config.json", "config.json")
        for token in _ids(_read(folder / name).get("eos_token_id"))
    }
    name = _read(folder / "tokenizer_config.json").get("eos_token")
    token = (
        vocabulary.tokenizer.token_to_id(name["content"] if isinstance(name, dict) else name)
        if name
        else None
    )
    return frozenset(ids if token is None else ids | {token}) & vocabulary.names.keys()


def _ids(value: Any) -> Iterator[int]:
    values = value if isinstance(value, list) else [value]
    yield from (token for token in values if isinstance(token, int))


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # the file is optional
    return value if isinstance(value, dict) else {}
