"""Recovers the store at a start. Crashes leave temporary names and half uploads; both are cleared.

Which release runs after a crash is decided in `deployment/activation_rules.py` (`recovered`).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from edgewright.durable import (
    TEMPORARY_PREFIX,
    FileSystem,
    disk_errors,
    publish,
    read_regular,
    remove_tree,
)
from edgewright.errors import EdgewrightError
from edgewright.manifest import parse_manifest
from edgewright_agent.store.blobs.upload_record import read_meta
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.store.files.releases import (
    MANIFEST,
    StagedRelease,
    clear_unlisted,
    heal_release,
    read_release,
)
from edgewright_agent.store.files.version import check_version
from edgewright_agent.store.upkeep.unexpected import put_aside

_BLOB_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RecoveredStore:
    """The blobs and releases that are whole."""

    blob_bytes: dict[str, int]  # size of each blob by its SHA-256
    releases: tuple[StagedRelease, ...]


def recover(fs: FileSystem, layout: Layout) -> RecoveredStore:
    """Brings the store to a state it could have been in without the crash. Running it again changes nothing.

    Raises as `check_version`.
    """
    with disk_errors(layout.root):
        put_aside(fs, layout)
        check_version(fs, layout)
        for folder in layout.folders:
            fs.make_folder(folder)
        _clear_temporary(fs, layout)
        blob_bytes = _blobs(layout)
        _clear_partials(fs, layout, set(blob_bytes))
        releases = tuple(_releases(fs, layout))
        _make_names_durable(fs, layout)
        return RecoveredStore(blob_bytes, releases)


def _clear_temporary(fs: FileSystem, layout: Layout) -> None:
    for folder in (layout.root, layout.partial, layout.releases):
        for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}*")):
            remove_tree(fs, path) if path.is_dir() else fs.unlink(path)
    for path in sorted(layout.releases.glob(f"*/prepared/{TEMPORARY_PREFIX}*")):
        remove_tree(
            fs, path
        )  # the board lost its power, or the agent was killed, while it prepared an engine
    for path in sorted(layout.releases.glob(f"*/**/{TEMPORARY_PREFIX}*")):
        if not path.is_dir():  # a folder is none of ours: earlier agents staged releases that have one
            fs.unlink(path)  # the agent ended while it healed a release


def _blobs(layout: Layout) -> dict[str, int]:
    found = layout.blobs.glob("*/*")
    return {path.name: path.stat().st_size for path in found if _BLOB_NAME.fullmatch(path.name)}


def _clear_partials(fs: FileSystem, layout: Layout, blobs: set[str]) -> None:
    for sha256 in sorted({path.stem for path in layout.partial.iterdir()}):
        meta, data = layout.partial_meta(sha256), layout.partial_data(sha256)
        if sha256 in blobs or read_meta(meta) is None or not data.exists():
            fs.unlink(meta)
            fs.unlink(data)


def _releases(fs: FileSystem, layout: Layout) -> list[StagedRelease]:
    found = []
    for folder in sorted(layout.releases.iterdir()):
        _heal(fs, layout, folder)
        release = read_release(folder)
        if release is None:
            publish(fs, folder, layout.quarantine / _name_of_broken(folder))
        else:
            found.append(release)
    return found


def _heal(fs: FileSystem, layout: Layout, folder: Path) -> None:
    """Finishes the links of a blob that arrived again, where an agent ended before it could."""
    try:
        manifest = parse_manifest(read_regular(folder / MANIFEST))
    except (OSError, EdgewrightError):
        return  # not whole, and about to be found so
    clear_unlisted(fs, layout, manifest, folder)
    heal_release(fs, layout, manifest, folder)


def _make_names_durable(fs: FileSystem, layout: Layout) -> None:
    """Syncs the folders. What a killed agent renamed is seen here, but might not survive a power cut yet."""
    for folder in (*sorted(layout.blobs.iterdir()), *layout.folders, layout.blobs.parent, layout.root):
        fs.sync_folder(folder)


def _name_of_broken(folder: Path) -> str:
    return f"release-{folder.name}.{time.time_ns()}"
