"""Reading sysfs and procfs: absent is None, and a collector without hardware raises NoDataError."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edgewright.errors import OutsideError


class NoDataError(OutsideError):
    """There is nothing to measure here; the message says why."""


def read_text(path: Path) -> str | None:
    """Returns the file's text without surrounding blanks; None if it can't be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """Returns the file's integer; None if it can't be read or holds none."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def why_unreadable(path: Path) -> str:
    """Returns why reading `path` fails: 'Permission denied', 'No such file or directory', …"""
    try:
        path.read_bytes()
    except OSError as error:
        return f"{error.strerror}: {path}"
    return f"no number in {path}"


def distinct(names: Iterable[str]) -> Iterator[str]:
    """Yields the names, with repeats numbered: acpitz, acpitz-1, …: two series of one name are none."""
    taken: set[str] = set()
    for name in names:
        unique, number = name, 0
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        yield unique
