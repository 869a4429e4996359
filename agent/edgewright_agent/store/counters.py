"""Counts what has come into the store since the agent started, and what was found corrupt in it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, get_args

# Sent whole, sent as a difference, fetched from a mirror, copied from another blob here.
Way = Literal["full", "delta", "mirror", "dedup"]


class Traffic:
    """Counters that only rise. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()
        self._corrupt = 0

    def came(self, way: Way, size_bytes: int) -> None:
        """Counts a chunk that was written. `size_bytes` is what it cost: on the link, or for `dedup` on the disk."""
        with self._lock:
            self._bytes[way] += size_bytes

    def found_corrupt(self) -> None:
        """Counts a blob that no longer matches its digest."""
        with self._lock:
            self._corrupt += 1

    @property
    def bytes_by_way(self) -> dict[str, int]:
        """Returns the bytes by every way; zero for those not taken yet."""
        with self._lock:
            return {way: self._bytes[way] for way in get_args(Way)}

    @property
    def corrupt(self) -> int:
        """Returns how many blobs were found corrupt, by a scrub or before a start."""
        with self._lock:
            return self._corrupt
