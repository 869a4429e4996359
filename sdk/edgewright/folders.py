"""Refuses a file where a folder is wanted."""

from __future__ import annotations

from pathlib import Path

from edgewright.errors import InputError


def refuse_file(folder: Path) -> None:
    """Raises InputError if `folder`, or one it is to be in, is a file. One that does not exist is no error."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; give a folder.")
