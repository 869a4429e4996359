"""Chunks go to the disk past the page cache where the file system lets them: no copy, nothing to write back later.

O_DIRECT wants file offset, length and address in multiples of a block (open(2)). A chunk begins where its tensor
does, so its middle goes that way and its two edges, each less than a page, go through the cache. Like every write,
these bytes are durable after a sync and not before: the disk has a cache, and so has the journal.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
from collections.abc import Iterator
from pathlib import Path

from edgewright_agent.store.files import FileSystem

PAGE_BYTES = mmap.PAGESIZE
DIRECT_BYTES_MIN = 64 * 1024  # below, a trip to the disk costs more than a copy


class ChunkBuffer:
    """Memory for a chunk, in which it lies as in the file's pages: what `ChunkFile` can write without a copy."""

    def __init__(self, longest_bytes: int) -> None:
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = memoryview(mmap.mmap(-1, longest_bytes + PAGE_BYTES, flags=private))

    def at(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """Room for `size_bytes` that belong at this offset of a file."""
        begin = offset_bytes % PAGE_BYTES
        return self._memory[begin : begin + size_bytes]


class ChunkFile:
    """An open file that chunks are written to, past the cache where possible."""

    def __init__(self, fs: FileSystem, path: Path, file: int) -> None:
        """`file`: `path`, open for writing. Closed by the caller."""
        self._fs = fs
        self._file = file
        self._direct: int | None = None
        with _unsupported_is_fine():
            self._direct = fs.open_direct(path)

    def write(self, data: memoryview, offset: int) -> None:
        """Writes `data` at `offset`. Raises OSError."""
        begin, end = -offset % PAGE_BYTES, len(data) - (offset + len(data)) % PAGE_BYTES
        if end - begin < DIRECT_BYTES_MIN or not _lies_as_in_the_file(data, offset):
            self._fs.write(self._file, data, offset)
            return
        self._fs.write(self._file, data[:begin], offset)
        self._write_direct(data[begin:end], offset + begin)
        self._fs.write(self._file, data[end:], offset + end)

    def close(self) -> None:
        """Lets go of the way past the cache."""
        if self._direct is not None:
            self._fs.close(self._direct)
            self._direct = None

    def _write_direct(self, pages: memoryview, offset: int) -> None:
        if self._direct is not None:
            with _unsupported_is_fine():
                self._fs.write(self._direct, pages, offset)
                return
            self.close()  # not on this disk
        self._fs.write(self._file, pages, offset)


def _lies_as_in_the_file(data: memoryview, offset: int) -> bool:
    if data.readonly:
        return False  # nobody's buffer: ctypes gives no address, and bytes are rarely aligned
    return (ctypes.addressof(ctypes.c_char.from_buffer(data)) - offset) % PAGE_BYTES == 0


@contextlib.contextmanager
def _unsupported_is_fine() -> Iterator[None]:
    """Not every file system knows O_DIRECT (tmpfs, some overlays, some FUSE)."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
