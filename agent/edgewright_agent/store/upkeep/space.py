"""Computes how much the store may still take: disk, quota, reserve, and what is promised to uploads."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import OutsideError
from edgewright.sizes import format_bytes
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store.blobs.blob import Blob
from edgewright_agent.store.files.layout import Layout


@dataclass(frozen=True)
class Space:
    """How much the store may take."""

    quota_bytes: int | None = (
        None  # blobs, prepared engines, uploads and quarantine together; None: as the disk allows
    )
    reserve_bytes: int = 512 * 1024 * 1024  # of the disk, never touched


def prepared_bytes(layout: Layout, digests: Iterable[str]) -> int:
    """Returns the disk space of what was made of these releases for their engines, or is being made."""
    folders = (layout.prepared(digest) for digest in digests)
    files = _files(path for folder in folders for path in folder.rglob("*"))
    return sum(found.st_blocks * 512 for found in files.values())


def free_bytes(space: Space, layout: Layout, blob_bytes: int, promised: Mapping[str, int]) -> int:
    """Returns what the store may still take.

    `blob_bytes`: with what was made of releases. `promised`: uploads that have begun, and the size of each. A promise
    counts from the moment it is made: its disk blocks may not be claimed yet.
    """
    uploads = {sha256: found.st_size for sha256, found in partials(layout).items()}
    outstanding = sum(max(0, size - uploads.get(sha256, 0)) for sha256, size in promised.items())
    free = shutil.disk_usage(layout.root).free - space.reserve_bytes - outstanding
    if space.quota_bytes is not None:
        taken = blob_bytes + sum(uploads.values()) + quarantine_bytes(layout) + outstanding
        free = min(free, space.quota_bytes - taken)
    return max(0, free)


def require_room(blob: Blob, available_bytes: int) -> None:
    """Raises OutsideError (`DISK_SPACE`) if the blob does not fit."""
    if blob.size_bytes > available_bytes:
        message = (
            f"The store is full: blob {blob.sha256[:12]} needs {format_bytes(blob.size_bytes)}, "
            f"{format_bytes(available_bytes)} are free within quota and reserve. "
            "Delete a release (`edgewright releases HOST --delete DIGEST`)."
        )
        raise OutsideError(message, Reason.REASON_DISK_SPACE)


def partials(layout: Layout) -> dict[str, os.stat_result]:
    """Returns the uploads by their blob. One that is published meanwhile is left out."""
    found = {}
    for path in layout.partial.glob("*.data"):
        with contextlib.suppress(FileNotFoundError):
            found[path.stem] = path.stat()
    return found


def quarantine_bytes(layout: Layout) -> int:
    """Returns the bytes of what was found corrupt, each file once whatever its names.

    A rotten blob counts although its release still links to it. What is a stored blob, too, counts as stored.
    """
    files = _files(layout.quarantine.rglob("*"))
    linked = any(found.st_nlink > 1 for found in files.values())
    stored = _files(layout.blobs.glob("*/*")) if linked else {}
    return sum(found.st_size for inode, found in files.items() if inode not in stored)


def quarantine_freed_bytes(layout: Layout) -> int:
    """Returns what removing the quarantine frees: the files that have no other name."""
    files = _files(layout.quarantine.rglob("*"))
    return sum(found.st_size for found in files.values() if found.st_nlink == 1)


def disk_bytes(folder: Path) -> int:
    """Returns the disk space of the files in a folder. Those that go meanwhile are left out."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def _files(paths: Iterable[Path]) -> dict[int, os.stat_result]:
    """Returns the files by their inode. One that goes meanwhile is left out."""
    files = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode):
                files[found.st_ino] = found
    return files
