"""Saves blobs a second hash: by a signed list of chunks on arrival, and by a fresh publication at staging."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgewright.manifest import Manifest
from edgewright_agent.store.blobs.blob import Blob

VOUCHED_MAX = 100_000  # blobs
FRESH_SECONDS = 3600.0


class SignedChunkings:
    """Which chunks make which blob, from manifests whose signature was verified.

    Such a manifest names the digest of each file and of its chunks. So a blob whose every chunk was verified against
    that list is the blob its signer meant. Hashing it again as a whole would prove nothing new, and would make
    resuming cost as much as the blob is long. What an engine loads is hashed as a whole before each activation.
    """

    def __init__(self) -> None:
        self._chunkings: dict[str, str] = {}

    def add(self, manifest: Manifest) -> None:
        """Adds the blobs of a manifest with a trusted signature."""
        for file in manifest.files:
            blob = Blob.of_file(file)
            self._chunkings.pop(blob.sha256, None)  # to the end: the oldest go first
            self._chunkings[blob.sha256] = blob.chunking
        while len(self._chunkings) > VOUCHED_MAX:
            del self._chunkings[next(iter(self._chunkings))]

    def covers(self, blob: Blob) -> bool:
        """Whether the chunks of `blob` are the signed ones."""
        return self._chunkings.get(blob.sha256) == blob.chunking


@dataclass(frozen=True)
class _Seen:
    inode: int
    size_bytes: int
    mtime_ns: int
    seconds: float


class RecentlyVerified:
    """The files that this process has just verified and written. Reading them back would only read the page cache."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Path, _Seen] = {}

    def note(self, path: Path) -> None:
        """Notes that the file has just been published."""
        now = self._clock()
        self._seen = {path: seen for path, seen in self._seen.items() if now - seen.seconds < FRESH_SECONDS}
        self._seen[path] = _look(path, now)

    def holds(self, path: Path) -> bool:
        """Whether the file is still the one that was noted, within the hour."""
        seen = self._seen.get(path)
        if seen is None or self._clock() - seen.seconds >= FRESH_SECONDS:
            return False
        try:
            return _look(path, seen.seconds) == seen
        except OSError:
            return False


def _look(path: Path, seconds: float) -> _Seen:
    found = path.stat()
    return _Seen(found.st_ino, found.st_size, found.st_mtime_ns, seconds)
