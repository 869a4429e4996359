"""Durable files: the few system calls that survive a power cut, in the order that makes them do so.

Write a temporary file beside the target, fsync it, rename it, fsync the folder (RAUC, `src/artifacts.c`).
Whoever reads sees the old file or the new one, whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason

TEMPORARY_PREFIX = ".tmp-"
UNSUPPORTED = (
    errno.EINVAL,
    errno.EOPNOTSUPP,
)  # what a file system says that can't (tmpfs, some overlays, some FUSE)
# What reading says of a file that is not there, is something else (a folder, a socket, a loop of links), or has rotted.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EIO)
_READ_BYTES = 1024 * 1024

Pace = Callable[[int], None]


class FileSystem:
    """The system calls that durability rests on. A test gives the store one that forgets what was not synced."""

    def create(self, path: Path) -> int:
        """Opens a new, empty file for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def open(self, path: Path) -> int:
        """Opens an existing file for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open_direct(self, path: Path) -> int:
        """Opens an existing file for writing past the page cache. Raises OSError (EINVAL) where that can't be."""
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)

    def close(self, file: int) -> None:
        """Closes the file; promises nothing about its bytes."""
        os.close(file)

    def allocate(self, file: int, size_bytes: int) -> None:
        """Claims the disk blocks now, so that a full disk is an answer and not an accident later."""
        if not size_bytes:
            return
        try:
            os.posix_fallocate(file, 0, size_bytes)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            os.ftruncate(file, size_bytes)  # this file system claims nothing ahead

    def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
        """Writes all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(file, view, offset)
            view, offset = view[written:], offset + written

    def sync_data(self, file: int) -> None:
        """Syncs the bytes, and the size if it changed."""
        os.fdatasync(file)

    def sync_file(self, file: int) -> None:
        """Syncs the bytes and the mode."""
        os.fsync(file)

    def sync_folder(self, path: Path) -> None:
        """Syncs the names in the folder."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def rename(self, source: Path, target: Path) -> None:
        """Replaces `target` in one step."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """Makes a second name for the same bytes."""
        target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        """Removes a name; nothing if it is gone."""
        path.unlink(missing_ok=True)

    def set_read_only(self, file: int) -> None:
        """Sets mode 0444."""
        os.fchmod(file, 0o444)

    def remove_folder(self, path: Path) -> None:
        """Removes an empty folder's name."""
        path.rmdir()

    def create_folder(self, path: Path) -> None:
        """Makes a folder in one that exists. It is not durable before that one is synced."""
        path.mkdir()

    def make_folder(self, path: Path) -> None:
        """Makes the folder and its parents, each durably named in the one above."""
        if not path.is_dir():
            self.make_folder(path.parent)
            self.create_folder(path)
            self.sync_folder(path.parent)

    def sha256_of(self, path: Path) -> str:
        """Returns the SHA-256 of the file's bytes, in hex, as a program sees them."""
        digest = hashlib.sha256()
        with os.fdopen(_open_regular(path), "rb", buffering=0) as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
        return digest.hexdigest()

    def sha256_on_disk(self, path: Path, pace: Pace) -> str:
        """Returns the SHA-256 of what the disk holds, past the page cache. `pace` gets the size of each piece read."""
        digest = hashlib.sha256()
        for piece in _pieces_on_disk(path):
            digest.update(piece)
            pace(len(piece))
        return digest.hexdigest()


def read_regular(path: Path) -> bytes:
    """Returns a file's bytes. Raises OSError, also for what is no file: reading a pipe would wait for ever."""
    with os.fdopen(_open_regular(path), "rb") as file:
        return file.read()


def write_durably(fs: FileSystem, path: Path, data: bytes) -> None:
    """Replaces `path` by `data`: after a crash at any point it holds the old bytes or the new ones.

    Raises OutsideError (`DISK_SPACE` if that is why).
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    with disk_errors(path):
        fs.unlink(temporary)
        file = fs.create(temporary)
        try:
            fs.write(file, data, 0)
            fs.sync_file(file)
        finally:
            fs.close(file)
        publish(fs, temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by `value` as indented JSON. Raises OutsideError as `write_durably` does."""
    write_durably(FileSystem(), path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def publish(fs: FileSystem, temporary: Path, target: Path) -> None:
    """Gives what is already durable under `temporary` its final name, durably."""
    fs.rename(temporary, target)
    fs.sync_folder(target.parent)


def _pieces_on_disk(path: Path) -> Iterator[memoryview]:
    """Yields a file's bytes as the disk has them; each piece is good until the next. Without O_DIRECT, cached pages
    are dropped first.
    """
    try:
        file = _open_regular(path, os.O_DIRECT)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        file = _open_regular(path)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        memory, offset = memoryview(mmap.mmap(-1, _READ_BYTES)), 0  # aligned
        while count := os.preadv(file, [memory], offset):
            yield memory[:count]
            offset += count
    finally:
        os.close(file)


def _open_regular(path: Path, flags: int = 0) -> int:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, "it is no file", str(path))
    return file


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the system's errors into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"The disk is full: {path} could not be written. Free some space; on a board, delete a release "
                "(`edgewright releases HOST --delete DIGEST`)."
            )
            raise OutsideError(message, Reason.REASON_DISK_SPACE) from error
        raise OutsideError(
            f"{path} could not be written: {error.strerror}. Check the disk and who may write there."
        ) from error


def raise_unless_gone(error: OSError, path: Path) -> None:
    """Raises OutsideError if reading failed in a way that may pass; else the file is not there, or is unreadable."""
    if error.errno not in GONE:
        raise OutsideError(
            f"{path} could not be read: {error.strerror}. Check the disk, and try again."
        ) from error


def remove_tree(fs: FileSystem, path: Path) -> None:
    """Removes a folder and all below it; does nothing if it is gone. It is neither durable nor one step.

    A link to a folder is removed, and the folder left alone.
    """
    if path.is_symlink():
        fs.unlink(path)
        return
    if not path.is_dir():
        return
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(fs, entry)
        else:
            fs.unlink(entry)
    fs.remove_folder(path)
