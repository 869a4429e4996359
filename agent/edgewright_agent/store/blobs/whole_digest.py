"""Computes the SHA-256 of a blob whose chunks arrive one by one, without reading it back if they come in order."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgewright_agent.store.blobs.blob import Blob

_READ_BYTES = 1024 * 1024


class WholeDigest:
    """Hashes chunks as they are written while they come in order. The rest is read from the file at the end.

    The state of a hash can't be saved, so a resumed upload is read back from where its order broke.
    """

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._digest = hashlib.sha256()
        self._next = 0  # the first chunk that is not in `_digest`

    def add(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Adds a chunk that was verified and written."""
        if index == self._next:
            self._digest.update(data)
            self._next += 1

    def finish(self, path: Path) -> str:
        """Returns the digest of the whole file at `path`, in hex."""
        if self._next < len(self._blob.chunks):
            with path.open("rb", buffering=0) as file:
                file.seek(self._blob.offsets[self._next])
                while data := file.read(_READ_BYTES):
                    self._digest.update(data)
            self._next = len(self._blob.chunks)
        return self._digest.hexdigest()
