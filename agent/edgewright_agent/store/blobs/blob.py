"""Blobs, what is missing of one, and ranges of chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from edgewright.manifest import File


@dataclass(frozen=True)
class Blob:
    """A file named by its digest, and the chunks it is cut into. The chunks in order, concatenated, are the file."""

    sha256: str  # hex
    size_bytes: int
    chunks: tuple[tuple[str, int], ...]  # (sha256 hex, bytes) of each

    @classmethod
    def of_file(cls, file: File) -> Blob:
        """Returns the blob that holds a manifest's file."""
        return cls(file.sha256, file.size_bytes, tuple((c.sha256, c.size_bytes) for c in file.chunks))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Returns where each chunk begins in the file, in bytes."""
        return (0, *accumulate(size for _, size in self.chunks))[: len(self.chunks)]

    @cached_property
    def chunking(self) -> str:
        """Returns a name of the way the blob is cut. Chunk numbers mean nothing under another chunking."""
        text = "\n".join(f"{sha256} {size}" for sha256, size in self.chunks)
        return hashlib.sha256(text.encode()).hexdigest()

    def bytes_of(self, chunks: Iterable[int]) -> int:
        """Returns the sum of the sizes of these chunks."""
        return sum(self.chunks[index][1] for index in chunks)


@dataclass(frozen=True)
class ChunkRange:
    """The chunks first, first + 1, … first + count - 1."""

    first: int
    count: int


@dataclass(frozen=True)
class Missing:
    """The chunks of a blob that must still be sent; none if the board can make it from what it has."""

    sha256: str
    chunks: tuple[ChunkRange, ...]
    missing_bytes: int


@dataclass(frozen=True)
class WriteStatus:
    """How much of an upload survives a power cut."""

    complete: bool
    durable_bytes: int
    durable_chunks: tuple[ChunkRange, ...]


def to_ranges(chunks: Iterable[int]) -> tuple[ChunkRange, ...]:
    """Returns the fewest ranges that cover exactly these chunks, in order."""
    ranges: list[ChunkRange] = []
    for index in sorted(set(chunks)):
        if ranges and index == ranges[-1].first + ranges[-1].count:
            ranges[-1] = ChunkRange(ranges[-1].first, ranges[-1].count + 1)
        else:
            ranges.append(ChunkRange(index, 1))
    return tuple(ranges)


def from_ranges(ranges: Iterable[ChunkRange]) -> set[int]:
    """Returns the chunks that the ranges cover."""
    return {index for span in ranges for index in range(span.first, span.first + span.count)}
