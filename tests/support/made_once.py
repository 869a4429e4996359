"""Folders that a script takes seconds to fill, always alike: filled once in a test session, then copied."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def filled(folder: Path, script: Path, *arguments: str) -> None:
    """Leaves in `folder` what `python SCRIPT FOLDER ARGUMENTS…` leaves there."""
    shutil.copytree(_filled_once(script, *arguments), folder, dirs_exist_ok=True)


@functools.cache
def _filled_once(script: Path, *arguments: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgewright-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = subprocess.run(
        [sys.executable, script, folder, *arguments], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return folder
