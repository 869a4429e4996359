"""Chunks go to the disk past the page cache where the file system lets them: no copy, nothing to write back later.

O_DIRECT wants file offset, length and address in multiples of a block (open(2)). A chunk begins where its tensor
does, so its middle goes that way and its two edges, each less than a page, go through the cache. Like every write,
these bytes are durable after a sync and not before: the disk has a cache, and so has the journal.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from pathlib import Path

from edgewright.durable import UNSUPPORTED, FileSystem

PAGE_BYTES = mmap.PAGESIZE
HUGE_PAGE_BYTES = 2 * 1024 * 1024
DIRECT_BYTES_MIN = 64 * 1024  # below, a trip to the disk costs more than a copy


class ChunkBuffer:
    """Memory for a chunk, aligned as in the file's pages, so that `ChunkFile` can write it without a copy."""

    def __init__(self, longest_bytes: int) -> None:
        huge_bytes = longest_bytes // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
        slack_bytes = PAGE_BYTES + (HUGE_PAGE_BYTES if huge_bytes else 0)
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        memory = mmap.mmap(-1, longest_bytes + slack_bytes, flags=private)
        begin = -_address(memoryview(memory)) % HUGE_PAGE_BYTES if huge_bytes else 0
        if huge_bytes:  # a few pieces for the disk instead of a thousand: twice as fast where it was measured
            with contextlib.suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE, begin, huge_bytes)
        self._memory = memoryview(memory)[begin:]

    def at(self, offset_bytes: int, size_bytes: int) -> memoryview:
        """Returns room for `size_bytes` that belong at this offset of a file."""
        begin = offset_bytes % PAGE_BYTES
        return self._memory[begin : begin + size_bytes]


class ChunkFile:
    """An open file that chunks are written to, past the page cache where possible."""

    def __init__(self, fs: FileSystem, path: Path, file: int) -> None:
        """`file` is `path`, open for writing. The caller closes it."""
        self._fs = fs
        self._file = file
        self._is_wanted = True
        self._direct: int | None
        try:
            self._direct = fs.open_direct(path)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            self._direct = None

    def write(self, data: memoryview, offset: int) -> None:
        """Writes `data` at `offset`; other places may be written at the same time. Raises OSError."""
        begin, end = -offset % PAGE_BYTES, len(data) - (offset + len(data)) % PAGE_BYTES
        if end - begin < DIRECT_BYTES_MIN or not _lies_as_in_the_file(data, offset):
            self._fs.write(self._file, data, offset)
            return
        self._fs.write(self._file, data[:begin], offset)
        self._write_pages(data[begin:end], offset + begin)
        self._fs.write(self._file, data[end:], offset + end)

    def close(self) -> None:
        """Closes the handle that writes past the cache."""
        if self._direct is not None:
            self._fs.close(self._direct)

    def _write_pages(self, pages: memoryview, offset: int) -> None:
        if self._direct is not None and self._is_wanted:
            try:
                self._fs.write(self._direct, pages, offset)
                return
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                self._is_wanted = False  # this disk does not take what its file system promised
        self._fs.write(self._file, pages, offset)


def _lies_as_in_the_file(data: memoryview, offset: int) -> bool:
    # `bytes` give no address, and are rarely aligned.
    return not data.readonly and (_address(data) - offset) % PAGE_BYTES == 0


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
