"""What a start finds in the store. Crashes leave temporary names and half uploads; both are cleared."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.errors import InputError
from edgewright_agent.store.files import TEMPORARY_PREFIX, FileSystem, disk_errors, publish, write_durably
from edgewright_agent.store.layout import Layout
from edgewright_agent.store.releases import StagedRelease, read_release
from edgewright_agent.store.upload import read_meta

VERSION = b"1\n"


@dataclass(frozen=True)
class Found:
    """All that is whole."""

    blob_bytes: dict[str, int]  # size of each blob by its SHA-256
    releases: tuple[StagedRelease, ...]


def recover(fs: FileSystem, layout: Layout) -> Found:
    """Brings the store to a state it could have been in without the crash. Running it again changes nothing.

    Raises InputError if a newer agent wrote the store.
    """
    with disk_errors(layout.root):
        for folder in layout.folders:
            fs.make_folder(folder)
        _check_version(fs, layout)
        _clear_temporary(layout)
        blob_bytes = {path.name: path.stat().st_size for path in layout.blobs.glob("*/*")}
        _clear_partials(fs, layout, set(blob_bytes))
        return Found(blob_bytes, tuple(_releases(fs, layout)))


def _check_version(fs: FileSystem, layout: Layout) -> None:
    if not layout.version.exists():
        write_durably(fs, layout.version, VERSION)
    found = layout.version.read_bytes()
    if found != VERSION:
        message = f"The store {layout.root} has layout {found!r}; this agent knows {VERSION!r}."
        raise InputError(message)


def _clear_temporary(layout: Layout) -> None:
    for folder in (layout.root, layout.partial, layout.releases):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _clear_partials(fs: FileSystem, layout: Layout, blobs: set[str]) -> None:
    for sha256 in {path.stem for path in layout.partial.iterdir()}:
        meta, data = layout.partial_meta(sha256), layout.partial_data(sha256)
        if sha256 in blobs or read_meta(meta) is None or not data.exists():
            fs.unlink(meta)
            fs.unlink(data)


def _releases(fs: FileSystem, layout: Layout) -> list[StagedRelease]:
    found = []
    for folder in sorted(layout.releases.iterdir()):
        release = read_release(folder)
        if release is None:
            publish(fs, folder, layout.quarantine / _name_of_broken(folder))
        else:
            found.append(release)
    return found


def _name_of_broken(folder: Path) -> str:
    return f"release-{folder.name}.{time.time_ns()}"
