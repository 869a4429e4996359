"""The file to which each finished batch is appended, so that a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


class AnswerJournal:
    """Results by key, one JSON line each, durable when `put` returns. A line cut by a crash is dropped at opening.

    Keys are digests of all that determined the result, so a result is never used for another question.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                self._results[entry["key"]] = entry["result"]
            except (ValueError, KeyError, TypeError):
                break
            whole += len(line)
        if path.exists():
            os.truncate(path, whole)

    def get(self, key: str) -> Any | None:
        """Returns the result stored under the key, or None."""
        return self._results.get(key)

    def put(self, key: str, result: Any) -> None:
        """Appends a JSON-serialisable result and syncs the file."""
        line = json.dumps({"key": key, "result": result}, ensure_ascii=False) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._results[key] = result


def digest(*parts: object) -> str:
    """Returns the SHA-256 of the parts' canonical JSON, in hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
