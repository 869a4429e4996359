"""Paths that people give: home folders written out, and a file refused where a folder is wanted."""

from __future__ import annotations

import os
from pathlib import Path

from edgewright.errors import InputError


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns the path with `~` or `~NAME` written out. Raises InputError where that user has no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise InputError(
            f"{path} begins with {user}, and there is no such home folder; write it out."
        ) from None


def home() -> Path:
    """Returns the user's home folder. Raises InputError where there is none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        raise InputError(
            "This user has no home folder; set the environment variable HOME to a folder."
        ) from None


def refuse_file(folder: Path) -> None:
    """Raises InputError if `folder`, or one it is to be in, is a file. One that does not exist is no error."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; give a folder.")
