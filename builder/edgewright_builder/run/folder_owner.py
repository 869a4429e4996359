"""Whose a run's folder is: one build at a time, and a used one only of a build that resumes it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewright.errors import InputError, RefusedError

LOCK_NAME = ".lock"


def refuse_used(folder: Path, *, resume: bool) -> None:
    """Raises RefusedError for a folder that holds anything, unless it is to be resumed."""
    if not resume and folder.is_dir() and any(path.name != LOCK_NAME for path in folder.iterdir()):
        raise RefusedError(
            f"{folder} is not empty: add --resume to go on with that run, or choose another folder."
        )


@contextmanager
def claimed(folder: Path, *, resume: bool) -> Iterator[None]:
    """Makes or reopens a run's folder and keeps every other build out of it until the block ends.

    The kernel gives the folder back when this process ends, however it ends. Raises RefusedError while another build
    has the folder and as `refuse_used` does, InputError where it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} can't be made a folder ({error.strerror}); choose another --out."
        ) from None
    with (folder / LOCK_NAME).open("a+", encoding="utf-8") as lock:
        _lock(lock.fileno(), folder)
        refuse_used(folder, resume=resume)
        os.ftruncate(lock.fileno(), 0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Waits until no other process holds the lock file, and holds it until the block ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a", encoding="utf-8") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


def _lock(file: int, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 20, 0).decode(errors="replace").strip()
        process = f" (process {holder})" if holder else ""
        raise RefusedError(
            f"Another build{process} is running in {folder}: wait for its end, or choose another --out."
        ) from None
