"""A small JSON value on disk, with a version, a checksum, and its predecessor beside it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from edgewright.durable import FileSystem, raise_unless_gone, read_regular, write_durably


class StateFile:
    """Reads and replaces one value. A torn or altered file is noticed, and its predecessor used."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        self._fs = fs
        self._path = path
        self._previous = path.with_name(f"{path.name}.prev")
        self._generation = 0

    def read(self) -> dict[str, Any] | None:
        """Returns the newest whole value; None if there is none.

        Raises OutsideError if the board is out of something, so that the value may yet be whole.
        """
        found = [entry for entry in (_read(self._path), _read(self._previous)) if entry is not None]
        if not found:
            return None
        self._generation, value = max(found, key=lambda entry: entry[0])
        return value

    @property
    def is_lost(self) -> bool:
        """Whether there was a value and none of it can be read."""
        return self._path.exists() and _read(self._path) is None and _read(self._previous) is None

    def write(self, value: dict[str, Any]) -> None:
        """Replaces the value. After a crash at any point `read` gives the old one or the new one."""
        self._generation += 1
        body = json.dumps({"generation": self._generation, "value": value}, sort_keys=True)
        text = json.dumps({"crc32": zlib.crc32(body.encode()), "body": body}, indent=1)
        if _read(self._path) is not None:  # a broken file must not replace a whole predecessor
            write_durably(self._fs, self._previous, read_regular(self._path))
        write_durably(self._fs, self._path, text.encode())


def _read(path: Path) -> tuple[int, dict[str, Any]] | None:
    try:
        envelope = json.loads(read_regular(path))
        if zlib.crc32(envelope["body"].encode()) != envelope["crc32"]:
            return None
        body = json.loads(envelope["body"])
        return int(body["generation"]), dict(body["value"])
    except OSError as error:
        raise_unless_gone(error, path)
        return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
