"""Deltas of chunks: a zstd frame of the chunk XOR what the board already has of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.errors import InputError

WINDOW_BYTES_MAX = 4 * 1024 * 1024
STRETCHES_MAX = 1024


@dataclass(frozen=True)
class Stretch:
    """Bytes of a stored blob that lie under a stretch of the chunk."""

    offset_bytes: int  # within the chunk
    size_bytes: int
    blob_sha256: str
    blob_offset_bytes: int


@dataclass(frozen=True)
class Delta:
    """How a chunk is made: its frame's size, and the base to XOR with. Where no stretch lies, the base is zeros."""

    chunk: int
    frame_bytes: int
    base: tuple[Stretch, ...]


def check_delta(delta: Delta, chunk_bytes: int) -> None:
    """Raises InputError for a frame longer than the chunk, or stretches out of order or of bounds."""
    if not 0 < delta.frame_bytes <= chunk_bytes:
        raise InputError(
            f"The delta of chunk {delta.chunk} has {delta.frame_bytes} bytes, the chunk {chunk_bytes}. "
            "Send the chunk itself."
        )
    if len(delta.base) > STRETCHES_MAX:
        raise InputError(f"A delta's base has at most {STRETCHES_MAX} stretches; {len(delta.base)} came.")
    end = 0
    for stretch in delta.base:
        if stretch.offset_bytes < end or stretch.size_bytes <= 0:
            raise InputError(f"The delta of chunk {delta.chunk} has stretches that overlap or are empty.")
        end = stretch.offset_bytes + stretch.size_bytes
    if end > chunk_bytes:
        raise InputError(f"The base of chunk {delta.chunk} ends at {end}; the chunk has {chunk_bytes} bytes.")


def xor(first: bytes | bytearray | memoryview, second: bytes | bytearray | memoryview) -> bytes:
    """Returns the XOR of two byte strings of one length."""
    mixed = int.from_bytes(first, "little") ^ int.from_bytes(second, "little")
    return mixed.to_bytes(len(first), "little")
