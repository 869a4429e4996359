"""QEMU's log of a disk's writes (driver blklogwrites), in the format of the kernel's dm-log-writes.

A superblock of one sector, then entries: a header of one sector, and the data where there is some
(kernel: Documentation/admin-guide/device-mapper/log-writes.rst; QEMU: block/blklogwrites.c).
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR = 512
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4
_SUPER, _ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Write:
    """A write, a discard or a flush; `end` is where its entry ends in the log."""

    offset: int
    size: int
    flags: int
    data_at: int
    end: int

    @property
    def is_flush(self) -> bool:
        """Whether everything before it is on the disk once it is done."""
        return bool(self.flags & FLUSH)


def read_log(file: BinaryIO) -> Iterator[Write]:
    """Yields the entries in the order in which they were done."""
    magic, _, _, sector = _SUPER.unpack(file.read(_SUPER.size))
    if (magic, sector) != (MAGIC, SECTOR):
        raise ValueError(f"expected a log of {SECTOR}-byte sectors, found magic {magic:#x} and {sector}")
    position = SECTOR
    while True:
        file.seek(position)
        header = file.read(_ENTRY.size)
        if len(header) < _ENTRY.size:
            return
        start, sectors, flags, _ = _ENTRY.unpack(header)
        data_at, size = position + SECTOR, sectors * SECTOR
        position = data_at + (0 if flags & DISCARD else size)
        yield Write(start * SECTOR, size, flags, data_at, position)


@dataclass(frozen=True)
class Cut:
    """What the disk holds if the power goes between two flushes."""

    log_end: int  # of the flush before
    kept: int  # of the writes since, that reached the disk all the same
    image: Path


def flush_ends(log: Path) -> list[int]:
    """Returns where in the log each flush ends, after the place where the log begins."""
    with log.open("rb") as entries:
        return [SECTOR, *(write.end for write in read_log(entries) if write.is_flush)]


def cuts(base: Path, log: Path, work: Path, *, every: int = 1, seed: int = 1) -> Iterator[Cut]:
    """Yields the disk after each flush: without the writes that were not flushed yet, and with a random half of them.

    `base` is the disk before the first entry. `work` is written anew for each cut, and the caller may change it.
    `every` leaves out all but each so-manieth flush.
    """
    chance, flushed = random.Random(seed), base.with_name("flushed")
    _copy(base, flushed)
    with log.open("rb") as entries, flushed.open("r+b", buffering=0) as disk:
        pending: list[Write] = []
        number, end = 0, SECTOR
        for write in [*read_log(entries), None]:
            if write is not None and not write.is_flush:
                pending.append(write)
                continue
            kept = [each for each in pending if chance.random() < 0.5]
            for some in ([], kept) if kept else ([],):
                if number % every == 0:
                    _copy(flushed, work)
                    with work.open("r+b") as image:
                        _apply(entries, image, some)
                    yield Cut(end, len(some), work)
            _apply(entries, disk, pending)
            if write is not None:
                number, end, pending = number + 1, write.end, []


def _apply(log: BinaryIO, disk: BinaryIO, writes: list[Write]) -> None:
    for write in writes:
        disk.seek(write.offset)
        log.seek(write.data_at)
        disk.write(bytes(write.size) if write.flags & DISCARD else log.read(write.size))


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", source, target], check=True)
