"""Gives back memory that only the start needed, or the last push.

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


def release_startup_pages(only: frozenset[tuple[int, int]] | None = None) -> frozenset[tuple[int, int]]:
    """Gives the mapped files' pages back (madvise(2)); returns start and length of each mapping that was.

    Call it again with what it returned: a library that another thread loads just now is not to be touched, because its
    pages may be written between the look at them and the advice.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    mappings = frozenset(unwritten_files())
    return frozenset(
        mapping
        for mapping in (mappings if only is None else mappings & only)
        if not libc.madvise(*mapping, mmap.MADV_DONTNEED)
    )


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
