"""Memory of a loaded ONNX model that it does not need to keep.

ONNX Runtime maps the file of weights, repacks what its kernels multiply with into memory of its own, and never looks at
most of the file again. Its pages stay in the process's resident set until they are released.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@dataclass(frozen=True)
class MappedWeights:
    """The parts of this process's address space that map the file of weights. Found after the model is loaded."""

    ranges: tuple[tuple[int, int], ...]  # (start, length) in bytes

    def release(self) -> None:
        """Releases the file's pages; one that is read again comes back from the page cache (madvise(2))."""
        for start, length in self.ranges:
            if _libc.madvise(start, length, mmap.MADV_DONTNEED) != 0:
                raise OSError(ctypes.get_errno(), f"madvise of {length} bytes of weights")


def find_mapped_weights(file: Path, smaps: Path = Path("/proc/self/smaps")) -> MappedWeights:
    """Returns the private mappings of `file` that nobody has written to (proc_pid_smaps(5)); none if it isn't mapped.

    A written page has no copy in the file, so a mapping that holds one is left alone.
    """
    name, found = str(file.resolve()), {}
    current: tuple[int, int] | None = None
    for line in smaps.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0]:
            start, end = (int(address, 16) for address in words[0].split("-"))
            ours = len(words) == 6 and words[5] == name and words[1].endswith("p")
            current = (start, end - start) if ours else None
        elif current is not None and words[0] == "Anonymous:":
            found[current] = int(words[1])
    return MappedWeights(tuple(place for place, written_kib in found.items() if written_kib == 0))


def trim_heap() -> None:
    """Gives freed memory back to the kernel (malloc_trim(3)), where the C library knows how."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def restart_high_water_mark() -> None:
    """Lets VmHWM count from now on (proc_pid_clear_refs(5)); where this process may not, it goes on counting.

    While the model is loaded the mark holds pages of the file that the kernel would take back before it ran short.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
