"""Digests that name files and values: SHA-256 in hex."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_READ_BYTES = 1024 * 1024


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hex. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Returns the SHA-256 of `value` as canonical JSON, in hex. What JSON does not know goes in as its text."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
