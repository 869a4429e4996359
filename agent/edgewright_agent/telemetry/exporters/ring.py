"""A bounded record on disk: the latest entries, each with a sequence number, the oldest dropped first.

A folder of segments, each named by the sequence of its first entry. An entry is

    crc32 (4 bytes) | length (4) | sequence (8) | payload          little-endian; the crc covers all that follows it

Entries are handed to the kernel but not synced: flash memory lasts longer, and a power cut costs the last
seconds of a record that nobody's safety depends on. What was torn is cut off at the next start. Only what is read is
synced first: else a power cut would take back a sequence that a reader has seen, and give it to another entry.
A folder without entries begins at a random sequence, so that no reader of an earlier one takes its entries for known.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SEGMENTS = 8
ENTRY_BYTES_MAX = 1024 * 1024
FIRST_SEQUENCE_MAX = 2**40
_HEADER = struct.Struct("<IIQ")
_SUFFIX = ".ring"
_NAME = re.compile(r"[0-9a-f]{16}\.ring")


class Ring:
    """Entries under `folder`, of at most about `bytes_max`. Safe to use from several threads."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._segment_bytes_max = max(1, bytes_max // SEGMENTS)
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._last = self._recover()
        self._next = self._last + 1 if self._last else 1 + secrets.randbelow(FIRST_SEQUENCE_MAX)

    @property
    def last_sequence(self) -> int:
        """The number of the newest entry; 0 if there has been none."""
        return self._last

    def append(self, payload: bytes) -> int:
        """Keeps an entry and returns its sequence. Raises OSError."""
        self.extend([payload])
        return self._last

    def extend(self, payloads: Sequence[bytes]) -> int:
        """Keeps the first entries, as many as go into one segment, by one write; returns how many. Raises OSError."""
        with self._lock:
            segment = self._segment_for(self._next)
            room = self._segment_bytes_max - (segment.stat().st_size if segment.exists() else 0)
            entries: list[bytes] = []
            for payload in payloads:
                if entries and sum(map(len, entries)) >= room:
                    break
                entries.append(_entry(payload, self._next + len(entries)))
            _append_whole(segment, b"".join(entries))
            self._last, self._next = self._next + len(entries) - 1, self._next + len(entries)
            return len(entries)

    def read(self, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yields the entries with a sequence above `after`, oldest first. What is damaged is left out.

        After a sequence that this ring never gave, as an earlier one in its place did, it yields all of them.
        """
        after = after if after <= self._last else 0
        segments = self._segments()
        _sync(self._folder)
        following = [*(_first(segment) for segment in segments[1:]), None]
        for segment, next_first in zip(segments, following, strict=True):
            if next_first is None or next_first > after + 1:
                entries = list(_entries(segment))
                _sync(segment)
                yield from ((sequence, payload) for sequence, payload, _ in entries if sequence > after)

    def _segments(self) -> list[Path]:
        return sorted(
            path for path in self._folder.iterdir() if _NAME.fullmatch(path.name) and path.is_file()
        )

    def _segment_for(self, sequence: int) -> Path:
        segments = self._segments()
        if segments and segments[-1].stat().st_size < self._segment_bytes_max:
            return segments[-1]
        for oldest in segments[: max(0, len(segments) - SEGMENTS + 1)]:
            oldest.unlink()
        return self._folder / f"{sequence:016x}{_SUFFIX}"

    def _recover(self) -> int:
        """Cuts a torn end off the newest segment; returns the newest sequence."""
        segments = self._segments()
        if not segments:
            return 0
        last, end = _first(segments[-1]) - 1, 0
        for sequence, _, entry_end in _entries(segments[-1]):
            last, end = sequence, entry_end
        if end < segments[-1].stat().st_size:
            with segments[-1].open("r+b") as file:
                file.truncate(end)
        return last


def _entry(payload: bytes, sequence: int) -> bytes:
    if len(payload) > ENTRY_BYTES_MAX:
        raise ValueError(f"an entry of {len(payload)} bytes; at most {ENTRY_BYTES_MAX} are kept")
    checked = struct.pack("<IQ", len(payload), sequence) + payload
    return zlib.crc32(checked).to_bytes(4, "little") + checked


def _append_whole(segment: Path, entry: bytes) -> None:
    """Appends all of the bytes or nothing: what follows a torn one could not be read. Raises OSError."""
    with segment.open("ab", buffering=0) as file:
        written = file.write(entry)
        if written != len(entry):  # the disk was full midway, which a raw write does not raise
            file.truncate(file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(segment))


def _sync(path: Path) -> None:
    """Syncs the file, unless it was dropped meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _first(segment: Path) -> int:
    return int(segment.stem, 16)


def _entries(segment: Path) -> Iterator[tuple[int, bytes, int]]:
    """Yields sequence, payload and end offset of each whole entry, up to the first that is damaged."""
    try:
        data = segment.read_bytes()
    except FileNotFoundError:
        return  # dropped while it was being read
    offset = 0
    while offset + _HEADER.size <= len(data):
        crc, length, sequence = _HEADER.unpack_from(data, offset)
        end = offset + _HEADER.size + length
        if length > ENTRY_BYTES_MAX or end > len(data) or zlib.crc32(data[offset + 4 : end]) != crc:
            return
        yield sequence, data[offset + _HEADER.size : end], end
        offset = end
