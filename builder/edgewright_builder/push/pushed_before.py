"""Artifacts that were pushed from this machine, kept so that the next push can be a delta against one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.errors import EdgewrightError
from edgewright_builder.artifact.artifact import MANIFEST_NAME, SIGNATURE_NAME, Artifact, open_artifact
from edgewright_builder.models.sources import cache_folder

_GOING = ".going-"
KEPT = 4  # artifacts; where the disk allows they are hard links and cost nothing


def pushed_folder() -> Path:
    """Returns where they are kept: a folder for each, named by its digest."""
    return cache_folder() / "pushed"


def remember(artifact: Artifact) -> None:
    """Keeps the artifact, by hard links where it lies on the same disk, and forgets the oldest beyond `KEPT`."""
    kept = pushed_folder() / artifact.digest
    if _is_whole(kept):
        os.utime(kept)
        return
    _remove(kept)
    kept.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".new-"))
    try:
        for path in (*(file.path for file in artifact.manifest.files), MANIFEST_NAME, SIGNATURE_NAME):
            _link_or_copy(artifact.folder / path, building / path)
        building.rename(kept)
    except OSError:
        if not kept.is_dir():  # no other push was faster
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _forget_oldest(kept.parent)


def find(digests: Sequence[str], folders: Sequence[Path]) -> Artifact | None:
    """Returns the first of these artifacts that is at hand: in one of `folders`, or remembered."""
    given = {artifact.digest: artifact for artifact in map(_open, folders) if artifact is not None}
    for digest in digests:
        found = given.get(digest) or _open(pushed_folder() / digest)
        if found is not None and found.digest == digest:
            return found
    return None


def _open(folder: Path) -> Artifact | None:
    try:
        return open_artifact(folder)
    except EdgewrightError:
        return None


def _is_whole(folder: Path) -> bool:
    artifact = _open(folder)
    if artifact is None:
        return False
    paths = ((artifact.path(file), file.size_bytes) for file in artifact.manifest.files)
    return all(path.is_file() and path.stat().st_size == size_bytes for path, size_bytes in paths)


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _forget_oldest(folder: Path) -> None:
    kept = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".")),
        key=lambda path: path.stat().st_mtime,
    )
    for path in kept[:-KEPT]:
        _remove(path)
    for path in folder.glob(f"{_GOING}*"):  # of a push that was stopped while it removed
        shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    """Takes an entry away at one stroke, so that no push finds half of it. Nothing if it is gone."""
    going = path.with_name(f"{_GOING}{path.name}")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
    shutil.rmtree(going, ignore_errors=True)
