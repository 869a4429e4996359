"""A Unix socket that one program listens on: never taken over from a program that answers, and removed by its owner.

A socket's file outlives its program, and anybody may remove it and bind its own. So the path is held by a lock on a
file beside it, and only a file that is still the one that was bound is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from edgewright.errors import InputError

SOCKET_MODE = 0o660  # its owner and its group
PROBE_SECONDS = 1.0


@contextlib.contextmanager
def bound_unix_socket(path: Path) -> Iterator[socket.socket]:
    """Yields a socket bound to `path`, not listening yet. Raises InputError if the path is in use; OSError."""
    with _locked(path), socket.socket(socket.AF_UNIX) as bound:
        _remove_stale(path)
        bound.bind(str(path))
        path.chmod(SOCKET_MODE)  # before anybody can connect
        made = path.stat()
        try:
            yield bound
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.lstat(), made):
                    path.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds `PATH.lock`, which is removed at the end. Raises InputError if another agent holds it."""
    lock = path.with_name(path.name + ".lock")
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise _in_use(path) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), lock.lstat()):
                break
        os.close(handle)  # its holder removed it between our two calls
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _remove_stale(path: Path) -> None:
    """Removes the socket that a program which is gone has left. Raises InputError for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InputError(
            f"{path} is there and is no socket; it was left alone. Choose another path for --openai."
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except (TimeoutError, BlockingIOError):
            raise _in_use(path) from None
        else:
            raise _in_use(path)


def _in_use(path: Path) -> InputError:
    return InputError(
        f"{path} is in use by another program; stop that one, or choose another path for --openai."
    )
