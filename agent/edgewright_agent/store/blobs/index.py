"""The index of stored blobs: their sizes, their chunks, when each was last asked about, and whether it is sound."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from edgewright.durable import FileSystem, Pace, disk_errors, publish, raise_unless_gone
from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store.blobs.blob import Blob
from edgewright_agent.store.blobs.chunks import ChunkIndex
from edgewright_agent.store.blobs.verified import RecentlyVerified
from edgewright_agent.store.files.layout import Layout


class BlobIndex:
    """The blobs by their digest. The caller locks, except for `digest_of`, which reads for long."""

    def __init__(
        self, fs: FileSystem, layout: Layout, sizes: Mapping[str, int], clock: Callable[[], float]
    ) -> None:
        self.sizes = dict(sizes)  # bytes by SHA-256
        self.chunks = ChunkIndex(layout)
        self._fs = fs
        self._layout = layout
        self._clock = clock
        self._asked: dict[str, float] = {}
        self._fresh = RecentlyVerified(clock)

    def ask(self, sha256: str) -> bool:
        """Whether the blob is here. If so, notes that it was asked about now."""
        if sha256 not in self.sizes:
            return False
        self._asked[sha256] = self._clock()
        return True

    def idle_seconds(self) -> dict[str, float]:
        """Returns the seconds since each blob was asked about; one left out never was."""
        now = self._clock()
        return {sha256: now - asked for sha256, asked in self._asked.items()}

    def settle(self, sha256: str) -> None:
        """Notes that a release keeps the blob from now on, so that it does not matter when somebody asked."""
        self._asked.pop(sha256, None)

    def put(self, blob: Blob) -> None:
        """Adds a blob that was just verified and published."""
        self._fresh.note(self._layout.blob(blob.sha256))
        self.sizes[blob.sha256] = blob.size_bytes
        self.ask(blob.sha256)
        self.chunks.add_all([blob])

    def is_fresh(self, sha256: str) -> bool:
        """Whether this process published the blob just now, and nobody has touched it since."""
        return self._fresh.holds(self._layout.blob(sha256))

    def remove(self, sha256: str) -> None:
        """Deletes the blob. Raises OSError."""
        self._fs.unlink(self._layout.blob(sha256))
        self._forget(sha256)

    def digest_of(self, sha256: str, pace: Pace | None = None) -> str:
        """Returns the SHA-256 of the blob's file, read from the disk itself if there is a `pace`; or why it is lost.

        Raises OutsideError if the board is out of something, so that the blob may yet be sound.
        """
        path = self._layout.blob(sha256)
        try:
            return self._fs.sha256_of(path) if pace is None else self._fs.sha256_on_disk(path, pace)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            raise_unless_gone(error, path)
            return f"unreadable ({error.strerror})"

    def put_in_quarantine(self, sha256: str) -> bool:
        """Moves a blob to quarantine that is not what its name says. Returns whether it still counted as here."""
        path = self._layout.blob(sha256)
        with disk_errors(path):
            if path.exists():
                publish(self._fs, path, self._layout.quarantine / f"{sha256}.{time.time_ns()}")
        return self._forget(sha256)

    def _forget(self, sha256: str) -> bool:
        self._asked.pop(sha256, None)
        self.chunks.forget(sha256)
        return self.sizes.pop(sha256, None) is not None


def corrupt_blob(sha256: str, actual: str) -> OutsideError:
    """Returns the error for a blob that is in quarantine now (`STORE_CORRUPT`)."""
    message = f"Stored blob {sha256[:12]} is now {actual[:24]}; it was put in quarantine. Push it again."
    return OutsideError(message, Reason.REASON_STORE_CORRUPT)
