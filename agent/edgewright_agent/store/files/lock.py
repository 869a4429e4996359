"""The lock that gives a store to one agent."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from edgewright.durable import disk_errors
from edgewright.errors import InputError
from edgewright.v1.common_pb2 import Reason


def take_lock(path: Path) -> int:
    """Returns the open file that holds the lock for as long as it stays open. Raises InputError (`BUSY`)."""
    with disk_errors(path):
        if (
            os.path.lexists(path) and not path.is_file()
        ):  # a folder, a pipe or a dangling link is nobody's lock
            path.rename(path.with_name(f"{path.name}.unexpected-{time.time_ns()}"))
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        message = f"The store {path.parent} is held by another agent. Stop it, or choose another --store."
        raise InputError(message, Reason.REASON_BUSY) from None
    return lock
