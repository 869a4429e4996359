"""Finds what does not belong in the store: a folder in the place of a file, a dangling link, a pipe, a strange name.

An interrupted repair of the disk, a careless `cp` or a broken backup leaves such things. They must not stop a start.
They go to quarantine, where `edgewright status` counts them and `edgewright gc --quarantine` removes them.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edgewright.durable import TEMPORARY_PREFIX, FileSystem, publish
from edgewright_agent.store.files.layout import Layout

PREFIX = "unexpected-"
_HEX_PAIR, _SHA256 = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{64}\.(data|meta)")
_SEGMENT = re.compile(r"[0-9a-f]{16}\.ring")
_DOCUMENT = re.compile(r"\d+\.json")
_TRUST = re.compile(r"chain\.json(\.prev)?|clock")
_ASIDE = re.compile(r"aside-\d+")

_log = logging.getLogger(__name__)


def put_aside(fs: FileSystem, layout: Layout) -> None:
    """Moves to quarantine what does not belong in the store. Raises OSError.

    A folder of the store may be a link to one. Where the absence of a file would mean that there has never been one,
    an empty file is left behind: so it is known that something was lost.
    """
    mover = _Mover(fs, layout)
    mover.make_quarantine()
    for path in (layout.version, layout.state, layout.state_previous):
        mover.check([path], _is_file, leaves_a_file=True)
    mover.check([layout.scrub, layout.scrub_previous], _is_file)
    folders = (
        layout.blobs.parent,
        layout.blobs,
        layout.partial,
        layout.releases,
        layout.trust,
        layout.telemetry,
    )
    for folder in folders:
        mover.check([folder], Path.is_dir)
    mover.check(set(_entries(layout.blobs.parent)) - {layout.blobs}, lambda _: False)
    mover.check(_entries(layout.blobs), _named(_HEX_PAIR, stat.S_ISDIR))
    for pair in _entries(layout.blobs):
        mover.check(_entries(pair), _named(_SHA256, stat.S_ISREG))
    mover.check(_entries(layout.partial), _named(_UPLOAD, stat.S_ISREG))
    mover.check(_entries(layout.releases), _named(_SHA256, stat.S_ISDIR))
    mover.check(_entries(layout.telemetry), _named(_SEGMENT, stat.S_ISREG))
    kept = [path for path in _entries(layout.trust) if not _ASIDE.fullmatch(path.name)]
    documents = [path for path in kept if _DOCUMENT.fullmatch(path.name)]
    mover.check(documents, _is_file, leaves_a_file=True)
    mover.check(set(kept) - set(documents), _named(_TRUST, stat.S_ISREG))


class _Mover:
    def __init__(self, fs: FileSystem, layout: Layout) -> None:
        self._fs = fs
        self._layout = layout

    def make_quarantine(self) -> None:
        """Makes the quarantine first. A file in its place becomes the first thing in it."""
        quarantine = self._layout.quarantine
        if os.path.lexists(quarantine) and not quarantine.is_dir():
            moved = quarantine.with_name(f"{TEMPORARY_PREFIX}{PREFIX}{time.time_ns()}")
            publish(self._fs, quarantine, moved)
            self._fs.make_folder(quarantine)
            publish(self._fs, moved, quarantine / f"{PREFIX}quarantine.{time.time_ns()}")
        self._fs.make_folder(quarantine)

    def check(
        self, paths: Iterable[Path], is_ours: Callable[[Path], bool], *, leaves_a_file: bool = False
    ) -> None:
        """Moves those of `paths` that exist and are not ours."""
        for path in paths:
            if path.name.startswith(TEMPORARY_PREFIX) or not os.path.lexists(path) or is_ours(path):
                continue
            _log.warning("%s is nothing that belongs there; it goes to quarantine", path)
            publish(self._fs, path, self._layout.quarantine / f"{PREFIX}{path.name}.{time.time_ns()}")
            if leaves_a_file:
                self._fs.close(self._fs.create(path))
                self._fs.sync_folder(path.parent)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_file(path: Path) -> bool:
    return path.is_file()  # or a link to one


def _named(pattern: re.Pattern[str], is_kind: Callable[[int], bool]) -> Callable[[Path], bool]:
    """Returns whether an entry has such a name and is, itself, of this kind."""
    return lambda path: pattern.fullmatch(path.name) is not None and is_kind(path.lstat().st_mode)
