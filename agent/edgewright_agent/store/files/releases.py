"""Releases on disk: a folder of hard links to verified blobs, built aside and renamed into place."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgewright.durable import (
    TEMPORARY_PREFIX,
    FileSystem,
    disk_errors,
    publish,
    raise_unless_gone,
    read_regular,
    remove_tree,
    write_durably,
)
from edgewright.errors import EdgewrightError
from edgewright.manifest import Manifest, manifest_digest, parse_manifest
from edgewright_agent.store.files.layout import Layout

MANIFEST, SIGNATURE, CHECKSUMS = "manifest.json", "manifest.sig", "SHA256SUMS"
LATER_SIGNATURE = "manifest.sig.later"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagedRelease:
    """A release that is whole on this board."""

    digest: str  # SHA-256 of the manifest, hex
    manifest: Manifest
    folder: Path

    @property
    def tree(self) -> Path:
        """The folder of the release's files."""
        return self.folder / "tree"

    @property
    def base(self) -> str:
        """The release whose model serves: this one, or the one an adapter adapts."""
        return self.manifest.base or self.digest

    @property
    def model_tree(self) -> Path:
        """The folder an engine loads the model from."""
        return self.folder.parent / self.base / "tree"

    @property
    def adapter(self) -> Path | None:
        """The adapter to load on top of the model; None without one."""
        return None if self.manifest.adapter is None else self.tree / self.manifest.adapter.path


def build_release(
    fs: FileSystem, layout: Layout, manifest: Manifest, manifest_bytes: bytes, signature: bytes
) -> StagedRelease:
    """Makes the release's folder out of blobs that are present and verified.

    Raises OutsideError (`DISK_SPACE`); then nothing of the release is left under its name.
    """
    digest = manifest_digest(manifest_bytes)
    building = layout.releases / f"{TEMPORARY_PREFIX}{digest}"
    if layout.release(digest).exists():  # an earlier attempt gave it its name, and then the disk failed
        remove_release(fs, layout, digest)
    with disk_errors(building):
        remove_tree(fs, building)
        for file in manifest.files:
            target = building / "tree" / file.path
            _create_folders(fs, target.parent)
            fs.link(layout.blob(file.sha256), target)
    write_records(fs, building, manifest_bytes, signature)
    with disk_errors(building):
        for folder, _, _ in os.walk(building, topdown=False):
            fs.sync_folder(Path(folder))
        publish(fs, building, layout.release(digest))
    return StagedRelease(digest, manifest, layout.release(digest))


def write_records(fs: FileSystem, folder: Path, manifest_bytes: bytes, signature: bytes) -> None:
    """Writes the release's own files, and their digests in the form that `sha256sum -c` reads."""
    lines = [_checksum_line(MANIFEST, manifest_bytes), _checksum_line(SIGNATURE, signature)]
    write_durably(fs, folder / MANIFEST, manifest_bytes)
    write_durably(fs, folder / SIGNATURE, signature)
    write_durably(fs, folder / CHECKSUMS, "".join(lines).encode())


def resign_release(fs: FileSystem, folder: Path, signature: bytes) -> None:
    """Keeps a later signature of the same manifest beside the first, in one step: the first is in the checksums."""
    if _read_signature(folder) != signature:
        write_durably(fs, folder / LATER_SIGNATURE, signature)


def read_signed(folder: Path) -> tuple[bytes, bytes]:
    """Returns the manifest and the signature that counts, the later one if there is one. Raises OSError."""
    return read_regular(folder / MANIFEST), _read_signature(folder)


def read_first_signed(folder: Path) -> tuple[bytes, bytes]:
    """Returns the manifest and the signature that it was staged with. Raises OSError."""
    return read_regular(folder / MANIFEST), read_regular(folder / SIGNATURE)


def _read_signature(folder: Path) -> bytes:
    later = folder / LATER_SIGNATURE
    return read_regular(later if later.exists() else folder / SIGNATURE)


def read_release(folder: Path) -> StagedRelease | None:
    """Returns the release in this folder; None if it is not whole or not what its name says.

    Raises OutsideError if the board is out of something, so that the release may yet be whole.
    """
    try:
        data, signature = read_regular(folder / MANIFEST), read_regular(folder / SIGNATURE)
        checksums = read_regular(folder / CHECKSUMS).decode()
        manifest = parse_manifest(data)
        sizes_bytes = [(folder / "tree" / file.path).stat().st_size for file in manifest.files]
    except (UnicodeDecodeError, EdgewrightError):
        return None
    except OSError as error:
        raise_unless_gone(error, folder)
        return None
    records_match = checksums == _checksum_line(MANIFEST, data) + _checksum_line(SIGNATURE, signature)
    whole = sizes_bytes == [file.size_bytes for file in manifest.files]
    is_named = manifest_digest(data) == folder.name
    return StagedRelease(folder.name, manifest, folder) if records_match and whole and is_named else None


def heal_release(
    fs: FileSystem, layout: Layout, manifest: Manifest, folder: Path, sha256: str | None = None
) -> None:
    """Links the release's files to the blobs as they are now, those of one blob or all that are here.

    A file is another inode than its blob once the blob was found corrupt and sent again.
    """
    for file in manifest.files:
        path, blob = folder / "tree" / file.path, layout.blob(file.sha256)
        if sha256 in (None, file.sha256) and blob.is_file() and not _is_link_of(path, blob):
            temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
            with disk_errors(path):
                _create_folders(fs, path.parent)
                fs.unlink(temporary)
                fs.link(blob, temporary)
                publish(fs, temporary, path)


def clear_unlisted(fs: FileSystem, layout: Layout, manifest: Manifest, folder: Path) -> None:
    """Moves to quarantine what lies among the release's files and is none of them: an engine might open it.

    That is a file the manifest does not list, and a link or a device in the place of one. Raises OutsideError.
    """
    tree = folder / "tree"
    files = {tree / file.path for file in manifest.files}
    folders = {parent for path in files for parent in path.parents}

    def is_listed(path: Path) -> bool:
        mode = path.lstat().st_mode
        return (path in files and stat.S_ISREG(mode)) or (path in folders and stat.S_ISDIR(mode))

    def check(paths: Iterable[Path]) -> None:
        for path in paths:
            if not is_listed(path):
                _log.warning("%s is no file of its release; it goes to quarantine", path)
                publish(fs, path, layout.quarantine / f"unlisted-{path.name}.{time.time_ns()}")

    with disk_errors(tree):
        check([tree] if os.path.lexists(tree) else [])
        for parent, subfolders, others in os.walk(tree):
            check(Path(parent) / name for name in (*subfolders, *others))


def remove_release(fs: FileSystem, layout: Layout, digest: str) -> None:
    """Removes the release: first its name, durably, then its links."""
    going = layout.releases / f"{TEMPORARY_PREFIX}{digest}"
    with disk_errors(going):
        remove_tree(fs, going)
        publish(fs, layout.release(digest), going)
        remove_tree(fs, going)


def _create_folders(fs: FileSystem, path: Path) -> None:
    if not path.is_dir():
        _create_folders(fs, path.parent)
        fs.create_folder(path)


def _checksum_line(name: str, data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n"


def _is_link_of(path: Path, blob: Path) -> bool:
    try:
        return path.samefile(blob)
    except OSError:
        return False
