"""Chooses what may go: a pure rule over what is here, who needs it, and when it was last asked about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

PROTECTED_SECONDS = 3600.0  # how long a blob that was asked about is kept
PARTIAL_SECONDS = 24 * 3600.0  # how long an upload may lie idle


@dataclass(frozen=True)
class Garbage:
    """What a collection removes, or would remove."""

    blobs: Mapping[str, int]  # bytes by SHA-256
    uploads: Mapping[str, int]
    kept_recent_bytes: int = 0  # of blobs no release needs that somebody asked about within the hour
    quarantine_freed_bytes: int = 0
    quarantine_bytes: int = 0  # left there

    @property
    def freed_bytes(self) -> int:
        """The bytes of everything that is removed."""
        return sum(self.blobs.values()) + sum(self.uploads.values()) + self.quarantine_freed_bytes


def choose_garbage(
    blob_bytes: Mapping[str, int],
    upload_bytes: Mapping[str, int],
    *,
    needed: Collection[str],
    idle_seconds: Mapping[str, float],
    upload_idle_seconds: Mapping[str, float],
) -> Garbage:
    """Returns the blobs that no release needs and nobody asked about for an hour, and uploads idle for a day.

    `idle_seconds`: since each blob was asked about; a blob left out never was. `upload_idle_seconds`: of the uploads
    without a writer; one left out is being written.
    """
    loose = {sha256: size for sha256, size in blob_bytes.items() if sha256 not in needed}
    blobs = {
        sha256: size
        for sha256, size in loose.items()
        if idle_seconds.get(sha256, PROTECTED_SECONDS) >= PROTECTED_SECONDS
    }
    uploads = {
        sha256: size
        for sha256, size in upload_bytes.items()
        if upload_idle_seconds.get(sha256, 0.0) >= PARTIAL_SECONDS
    }
    return Garbage(blobs, uploads, sum(loose.values()) - sum(blobs.values()))
