"""Gives back memory that only the start needed.

Importing and linking touch most pages of the files of Python and its libraries; running touches few of them again.
They stay in the resident set until memory runs short. Given back, they are page cache that anybody may use; a page
that is needed again is read from there.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

SMAPS = Path("/proc/self/smaps")


def release_startup_pages(smaps: Path = SMAPS) -> int:
    """Gives the mapped files' pages back (madvise(2)); returns the bytes of address space that were named."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    told = [
        size for start, size in unwritten_files(smaps) if not libc.madvise(start, size, mmap.MADV_DONTNEED)
    ]
    return sum(told)


def unwritten_files(smaps: Path = SMAPS) -> Iterator[tuple[int, int]]:
    """Yields start and length of each read-only mapping of a file no page of which differs from it
    (proc_pid_smaps(5)).

    Pages that the linker or a debugger has written have no copy in the file and are left alone.
    """
    current: tuple[int, int] | None = None
    for line in smaps.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0]:
            start, end = (int(address, 16) for address in words[0].split("-"))
            is_file = len(words) == 6 and words[5].startswith("/") and "w" not in words[1]
            current = (start, end - start) if is_file else None
        elif words[0] == "Anonymous:" and words[1] == "0" and current is not None:
            yield current
