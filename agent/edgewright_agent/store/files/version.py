"""The number of the store's layout, with a checksum: a flipped bit is not taken for a newer agent's number."""

from __future__ import annotations

import errno
import logging
import re
import zlib
from pathlib import Path

from edgewright.durable import FileSystem, read_regular, write_durably
from edgewright.errors import InputError, OutsideError
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.store.files.state_file import StateFile

LAYOUT_VERSION = 1
_WITHOUT_CHECKSUM = b"1\n"  # all that was ever written without one; "3", "5" and "9" are one flipped bit away
_CHECKSUMMED = re.compile(rb"(\d{1,9}) ([0-9a-f]{8})\n")

_log = logging.getLogger(__name__)


def version_line(version: int) -> bytes:
    """Returns the file's content for this layout."""
    digits = str(version).encode()
    return b"%s %08x\n" % (digits, zlib.crc32(digits))


def check_version(fs: FileSystem, layout: Layout) -> None:
    """Checks that this agent knows the layout. A damaged number is written again if everything else is ours.

    Call it before the store's folders are made. Raises InputError if a newer agent wrote the store, or if the number
    is damaged and nothing else tells whose store this is; OutsideError.
    """
    if not layout.version.exists():
        write_durably(fs, layout.version, version_line(LAYOUT_VERSION))
        return
    found = _content(layout.version)
    version = _version_of(found)
    if version is None:
        _require_ours(fs, layout, found)
        _log.warning("%s is damaged: it holds %r; writing it anew", layout.version, found)
    elif version != LAYOUT_VERSION:
        message = f"The store {layout.root} has layout {version}; this agent knows {LAYOUT_VERSION}."
        raise InputError(f"{message} Run the agent that wrote it, or give this one another folder.")
    if found != version_line(LAYOUT_VERSION):
        _write_anew(fs, layout.version)


def _content(path: Path) -> bytes:
    """Returns the file's bytes; empty where the disk can't read it any more."""
    try:
        return read_regular(path)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _version_of(content: bytes) -> int | None:
    """Returns the number; None if no agent wrote this."""
    if content == _WITHOUT_CHECKSUM:
        return 1
    match = _CHECKSUMMED.fullmatch(content)
    if match is None or content != version_line(int(match[1])):
        return None
    return int(match[1])


def _require_ours(fs: FileSystem, layout: Layout, found: bytes) -> None:
    """Raises InputError unless every folder is here and the state, if there is one, can be read."""
    lacking = [str(folder.relative_to(layout.root)) for folder in layout.folders if not folder.is_dir()]
    if StateFile(fs, layout.state).is_lost:
        lacking.append(f"a sound {layout.state.name}")
    if lacking:
        message = f"{layout.version} holds {found!r} instead of {version_line(LAYOUT_VERSION)!r}"
        raise InputError(f"{message}, and the folder lacks {', '.join(lacking)}. Is this the agent's store?")


def _write_anew(fs: FileSystem, path: Path) -> None:
    """Writes the number again. A full disk does not keep the board from starting: the next start tries again."""
    try:
        write_durably(fs, path, version_line(LAYOUT_VERSION))
    except OutsideError as error:
        _log.warning("%s stays as it is: %s", path, error)
