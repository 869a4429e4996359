"""Collects garbage on the disk: gathers what `garbage` needs to choose, and removes what it chose."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from edgewright.durable import FileSystem, disk_errors, remove_tree
from edgewright_agent.store.blobs.index import BlobIndex
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.store.upkeep.garbage import Garbage, choose_garbage
from edgewright_agent.store.upkeep.space import partials, quarantine_bytes, quarantine_freed_bytes


def find_garbage(
    layout: Layout, blobs: BlobIndex, *, needed: Collection[str], writing: Collection[str], quarantine: bool
) -> Garbage:
    """Returns what may go now. `needed`: blobs of releases; `writing`: uploads that have a writer."""
    uploads, now = partials(layout), time.time()
    garbage = choose_garbage(
        blobs.sizes,
        {sha256: found.st_size for sha256, found in uploads.items()},
        needed=needed,
        idle_seconds=blobs.idle_seconds(),
        upload_idle_seconds={
            sha256: now - found.st_mtime for sha256, found in uploads.items() if sha256 not in writing
        },
    )
    return replace(
        garbage,
        quarantine_freed_bytes=quarantine_freed_bytes(layout) if quarantine else 0,
        quarantine_bytes=0 if quarantine else quarantine_bytes(layout),
    )


def remove_garbage(
    fs: FileSystem, layout: Layout, blobs: BlobIndex, garbage: Garbage, *, quarantine: bool
) -> None:
    """Removes it, and what is in quarantine if asked. Raises OutsideError."""
    with disk_errors(layout.root):
        for sha256 in garbage.blobs:
            blobs.remove(sha256)
        for sha256 in garbage.uploads:
            fs.unlink(layout.partial_meta(sha256))
            fs.unlink(layout.partial_data(sha256))
        for path in sorted(layout.quarantine.iterdir()) if quarantine else ():
            remove_tree(fs, path) if path.is_dir() else fs.unlink(path)
