"""Artifacts on this disk: opened, compared, and given mirrors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import InputError
from edgewright.manifest import MIRRORS_MAX
from edgewright_builder.artifact import mirror
from edgewright_builder.artifact.artifact import Artifact, resign_artifact, verify_artifact
from edgewright_builder.artifact.artifact import open_artifact as open_folder
from edgewright_builder.artifact.diff import Comparison, compare
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push import pushed_before
from edgewright_builder.python_api.arguments import as_path, credentials_folder
from edgewright_builder.python_api.board import Board
from edgewright_builder.python_api.board_arguments import artifact_folder


@dataclass(frozen=True)
class ExportedMirror:
    """What was written for a web server; files that were there stayed."""

    folder: Path
    files: int
    size_bytes: int


def open_artifact(folder: str | Path | Artifact, *, verify: bool = False) -> Artifact:
    """Returns the artifact in a folder; with `verify`, every file is compared with its digest. Raises InputError."""
    path = artifact_folder(folder)
    return verify_artifact(path, None) if verify else open_folder(path)


def diff(
    old: str | Path | Artifact,
    new: str | Path | Artifact,
    *,
    credentials: str | Path | None = None,
    insecure: bool = False,
) -> Comparison:
    """Compares two artifacts: manifest, accuracy, files, tensors, and the bytes that a push would send.

    Each is an artifact, its folder, `HOST:PORT` for what a board serves, or `HOST:PORT/DIGEST` for a release there,
    which this machine must have pushed. Raises InputError.
    """
    return compare(*(_artifact_of(which, credentials, insecure) for which in (old, new)))


def add_mirrors(
    artifact: str | Path | Artifact,
    urls: Sequence[str],
    *,
    credentials: str | Path | None = None,
    replace: bool = False,
) -> Artifact:
    """Names mirrors in an artifact's manifest and signs it again, which gives it another digest.

    Each is `https://HOST/PATH` of an export or `oci://REGISTRY/NAME`. Boards call no address that is not signed.
    """
    folder, keys = artifact_folder(artifact), credentials_folder(credentials)
    if keys is None:
        raise InputError("The manifest must be signed again: give --credentials DIR with a release.key.")
    key = load_signing_key(keys / "release.key")
    named = [mirror.parse_mirror(url) for url in urls]
    before = () if replace else mirror.mirrors_of(folder)
    mirrors = list(dict.fromkeys((*before, *named)))
    if len(mirrors) > MIRRORS_MAX:
        raise InputError(
            f"The artifact would name {len(mirrors)} mirrors, and at most {MIRRORS_MAX} are read; name fewer, or "
            "replace those it has."
        )
    return resign_artifact(folder, key, mirrors=[each.model_dump() for each in mirrors])


def export_mirror(artifact: str | Path | Artifact, folder: str | Path) -> ExportedMirror:
    """Writes an artifact's files as an OCI image layout, to be served as it is or copied to a registry."""
    target = as_path(folder, "the mirror's folder")
    return ExportedMirror(target, *mirror.export(artifact_folder(artifact), target))


def _artifact_of(which: str | Path | Artifact, credentials: str | Path | None, insecure: bool) -> Artifact:
    if isinstance(which, Artifact):
        return which
    if (folder := as_path(which, "an artifact")).is_dir():
        return open_folder(folder)
    host, _, digest = str(which).partition("/")
    if ":" not in host:
        raise InputError(f"{which} is neither an artifact's folder nor HOST:PORT with an optional /DIGEST.")
    with Board(host, credentials=credentials, insecure=insecure) as board:
        wanted = board.releases().named(digest).release
    artifact = pushed_before.find([wanted], [])
    if artifact is None:
        raise InputError(
            f"Release {wanted[:12]} of {host} is not on this machine: only artifacts pushed from here are kept. "
            "Give its folder instead."
        )
    return artifact
