"""Tunes how the agent's process holds memory: little, and without asking the kernel again for every message."""

from __future__ import annotations

import ctypes

# glibc, malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

KEPT_BYTES = 16 * 1024 * 1024
LARGE_BYTES = 8 * 1024 * 1024


def trim() -> bool:
    """Gives freed memory back to the kernel (malloc_trim(3)). Returns whether the C library knows how, and had some."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False  # not glibc


def tune_allocator() -> bool:
    """Sets one arena instead of eight per core, and keeps a few freed MiB. Returns whether the C library knows how.

    An upload allocates and frees three buffers per message. By default glibc maps and unmaps each, and the page
    faults of that took an eighth of the agent's processor time (`benchmarks/push.py`).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # not glibc
    settings = ((_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_MMAP_THRESHOLD, LARGE_BYTES))
    done = [mallopt(name, value) == 1 for name, value in settings]
    return all(done)
