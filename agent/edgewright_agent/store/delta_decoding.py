"""Makes a chunk from fewer bytes: a zstd frame of the chunk XOR what the board already has of it.

Memory is bounded whatever is sent: one chunk, one piece of the base, and a decompression window of at most 4 MiB. The
caller compares what comes out with the chunk's digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import zstandard

from edgewright.chunk_delta import WINDOW_BYTES_MAX, Delta, Stretch, xor
from edgewright.errors import InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store.files.layout import Layout

_PIECE_BYTES = 256 * 1024


def apply_delta(layout: Layout, delta: Delta, frame: bytes | bytearray, chunk_bytes: int) -> bytearray:
    """Returns the chunk that `frame` makes with its base. Its digest is still to be checked.

    Raises InputError for a frame that does not hold `chunk_bytes` bytes, RefusedError (`DELTA_BASE_MISSING`).
    """
    chunk = _decompress(frame, chunk_bytes)
    for stretch in delta.base:
        try:
            with layout.blob(stretch.blob_sha256).open("rb") as blob:
                _xor_stretch(chunk, stretch, blob)
        except OSError:
            raise _base_missing(stretch) from None
    return chunk


def _decompress(frame: bytes | bytearray, size_bytes: int) -> bytearray:
    """Decompresses the frame. Stops as soon as more than `size_bytes` come out, so a bomb costs one byte too many."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    chunk, filled = bytearray(size_bytes), 0
    try:
        with decompressor.stream_reader(bytes(frame)) as reader:
            while filled < size_bytes and (count := reader.readinto(memoryview(chunk)[filled:])):
                filled += count
            more = bool(reader.read(1))
    except zstandard.ZstdError as error:
        raise InputError(f"The delta is no zstd frame with a window of at most 4 MiB ({error}).") from None
    if filled != size_bytes or more:
        held = f"more than {size_bytes}" if more else f"only {filled}"
        raise InputError(f"The delta holds {held} bytes; the chunk has {size_bytes}.")
    return chunk


def _xor_stretch(chunk: bytearray, stretch: Stretch, blob: BinaryIO) -> None:
    blob.seek(stretch.blob_offset_bytes)
    view = memoryview(chunk)[stretch.offset_bytes : stretch.offset_bytes + stretch.size_bytes]
    for piece in _pieces(view):
        base = blob.read(len(piece))
        if len(base) != len(piece):
            raise _base_missing(stretch)
        piece[:] = xor(piece, base)


def _pieces(view: memoryview) -> Sequence[memoryview]:
    return [view[first : first + _PIECE_BYTES] for first in range(0, len(view), _PIECE_BYTES)]


def _base_missing(stretch: Stretch) -> RefusedError:
    message = (
        f"The delta's base, {stretch.size_bytes} bytes at {stretch.blob_offset_bytes} of blob "
        f"{stretch.blob_sha256[:12]}, is not here. Send the chunk itself."
    )
    return RefusedError(message, Reason.REASON_DELTA_BASE_MISSING)
