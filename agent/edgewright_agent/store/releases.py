"""Releases on disk: a folder of hard links to verified blobs, built aside and renamed into place."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.errors import EdgewrightError
from edgewright_agent.manifest import Manifest, manifest_digest, parse_manifest
from edgewright_agent.store.files import TEMPORARY_PREFIX, FileSystem, disk_errors, publish, write_durably
from edgewright_agent.store.layout import Layout


@dataclass(frozen=True)
class StagedRelease:
    """A release that is whole on this board."""

    digest: str  # SHA-256 of the manifest, hex
    manifest: Manifest
    folder: Path

    @property
    def tree(self) -> Path:
        """The folder an engine loads from."""
        return self.folder / "tree"


def build_release(
    fs: FileSystem, layout: Layout, manifest: Manifest, manifest_bytes: bytes, signature: bytes
) -> StagedRelease:
    """Makes the release's folder out of blobs that are present and verified.

    Raises OutsideError (`DISK_SPACE`); then nothing of the release is left under its name.
    """
    digest = manifest_digest(manifest_bytes)
    building = layout.releases / f"{TEMPORARY_PREFIX}{digest}"
    with disk_errors(building):
        shutil.rmtree(building, ignore_errors=True)
        for file in manifest.files:
            target = building / "tree" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.link(layout.blob(file.sha256), target)
    write_durably(fs, building / "manifest.json", manifest_bytes)
    write_durably(fs, building / "manifest.sig", signature)
    with disk_errors(building):
        for folder, _, _ in os.walk(building, topdown=False):
            fs.sync_folder(Path(folder))
        publish(fs, building, layout.release(digest))
    return StagedRelease(digest, manifest, layout.release(digest))


def read_release(folder: Path) -> StagedRelease | None:
    """The release in this folder, or None if it is not whole or not what its name says."""
    try:
        data = (folder / "manifest.json").read_bytes()
        manifest = parse_manifest(data)
    except (OSError, EdgewrightError):
        return None
    release = StagedRelease(folder.name, manifest, folder)
    if manifest_digest(data) != folder.name or not (folder / "manifest.sig").is_file():
        return None
    whole = all(_size(release.tree / file.path) == file.size_bytes for file in manifest.files)
    return release if whole else None


def heal_release(fs: FileSystem, layout: Layout, release: StagedRelease, sha256: str) -> None:
    """Links the files that this blob is to the blob as it is now: the old one was found corrupt."""
    for file in release.manifest.files:
        if file.sha256 == sha256:
            path = release.tree / file.path
            temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
            with disk_errors(path):
                fs.unlink(temporary)
                fs.link(layout.blob(sha256), temporary)
                publish(fs, temporary, path)


def remove_release(fs: FileSystem, layout: Layout, digest: str) -> None:
    """Takes the release away: first its name, durably, then its links."""
    going = layout.releases / f"{TEMPORARY_PREFIX}{digest}"
    with disk_errors(going):
        shutil.rmtree(going, ignore_errors=True)
        publish(fs, layout.release(digest), going)
        shutil.rmtree(going)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
