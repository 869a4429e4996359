"""Reads all that is stored and compares it with its digest: bits rot on cheap flash."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Set
from dataclasses import dataclass

from edgewright.durable import Pace
from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store.files.releases import read_release
from edgewright_agent.store.store import Store


@dataclass(frozen=True)
class Scrubbed:
    """How far a scrub has come and what it has found."""

    blobs: int
    bytes: int
    total_bytes: int
    corrupt: tuple[str, ...] = ()  # blobs, now in quarantine
    damaged: tuple[str, ...] = ()  # releases that need one of them, or whose own files are corrupt
    done: bool = False


class ScrubStoppedError(Exception):
    """The scrub was asked to end."""


def scrub(
    store: Store, *, bytes_per_second_max: int = 0, stop: threading.Event | None = None
) -> Generator[Scrubbed, None, None]:
    """Verifies every blob and every release's own files; yields after each blob and at the end.

    Blocks on the disk between two items. Raises BusyError if another scrub runs, OutsideError for a disk that can't be
    read, ScrubStoppedError soon after `stop` is set.
    """
    with store.scrubbing():
        sizes = store.blob_bytes()
        pace = _pace(bytes_per_second_max, stop or threading.Event())
        progress = Scrubbed(0, 0, sum(sizes.values()))
        for sha256, size_bytes in sorted(sizes.items()):
            corrupt = progress.corrupt if is_sound(store, sha256, pace) else (*progress.corrupt, sha256)
            progress = Scrubbed(
                progress.blobs + 1, progress.bytes + size_bytes, progress.total_bytes, corrupt
            )
            yield progress
        damaged = damaged_releases(store, set(progress.corrupt))
        yield Scrubbed(
            progress.blobs, progress.bytes, progress.total_bytes, progress.corrupt, damaged, done=True
        )


def is_sound(store: Store, sha256: str, pace: Pace) -> bool:
    """Whether the disk still gives this blob's bytes. If not, the blob is in quarantine now. Raises OutsideError."""
    try:
        store.verify_blob(sha256, pace)
    except OutsideError as error:
        if error.reason != Reason.REASON_STORE_CORRUPT:
            raise
        return not store.was_lost(sha256)  # collected while it was read: nobody misses it
    return True


def damaged_releases(store: Store, corrupt: Set[str]) -> tuple[str, ...]:
    """Returns the releases that need one of these blobs, or whose own files are not whole."""
    return tuple(
        digest
        for digest, release in sorted(store.releases().items())
        if read_release(release.folder) is None or corrupt & {file.sha256 for file in release.manifest.files}
    )


def _pace(bytes_per_second_max: int, stop: threading.Event) -> Pace:
    """Returns a function that sleeps to keep the rate, and wakes up at once when asked to stop."""
    began, read_bytes = time.monotonic(), 0

    def pace(piece_bytes: int) -> None:
        nonlocal read_bytes
        read_bytes += piece_bytes
        due = began + read_bytes / bytes_per_second_max if bytes_per_second_max else 0.0
        if stop.wait(max(0.0, due - time.monotonic())):
            raise ScrubStoppedError

    return pace
