"""Where a folder is wanted and a file is given."""

from __future__ import annotations

from pathlib import Path

from edgewright.errors import InputError


def refuse_file(folder: Path) -> None:
    """Raises InputError if `folder`, or what it is to be in, is a file; that nothing is there is no error."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; give a folder.")
