"""Artifacts that were pushed from this machine, kept so that the next push can be a delta against one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright_agent.errors import EdgewrightError
from edgewright_builder.artifact import MANIFEST_NAME, SIGNATURE_NAME, Artifact, open_artifact
from edgewright_builder.models import cache_folder

KEPT = 4  # artifacts; where the disk allows they are hard links and cost nothing


def pushed_folder() -> Path:
    """Where they are kept: a folder for each, named by its digest."""
    return cache_folder() / "pushed"


def remember(artifact: Artifact) -> None:
    """Keeps the artifact, by hard links where it lies on the same disk, and forgets the oldest beyond `KEPT`."""
    kept = pushed_folder() / artifact.digest
    if kept.is_dir():
        os.utime(kept)
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".new-"))
    try:
        for path in (*(file.path for file in artifact.manifest.files), MANIFEST_NAME, SIGNATURE_NAME):
            _link_or_copy(artifact.folder / path, building / path)
        with contextlib.suppress(FileExistsError):  # another push was faster
            building.rename(kept)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _forget_oldest(kept.parent)


def find(digests: Sequence[str], folders: Sequence[Path]) -> Artifact | None:
    """The first of these artifacts that is at hand: in one of `folders`, or remembered."""
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
        shutil.rmtree(path, ignore_errors=True)
