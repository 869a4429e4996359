"""A blob as the messages of one WriteBlob, read ahead and encoded without copying twice."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from edgewright.v1.common_pb2 import Digest
from edgewright.v1.deployment_pb2 import Blob, BlobPart
from edgewright_agent import store
from edgewright_agent.manifest import File

PART_BYTES = 256 * 1024  # the fastest message size over loopback that stays far below the 4 MiB limit
_PART_FIELD = b"\x12"  # WriteBlobRequest.part = 2, length-delimited
_DATA_FIELD = b"\x1a"  # BlobPart.data = 3, length-delimited


@dataclass(frozen=True)
class Resumption:
    """Where the board still holds the beginning of a chunk: go on there, with that chunk first."""

    chunk: int
    offset_bytes: int


class Part(NamedTuple):
    """A message and the bytes of the blob it carries."""

    message: bytes  # an encoded WriteBlobRequest
    data_bytes: int


def blob_of(file: File) -> Blob:
    """The blob that holds a manifest's file."""
    return Blob(
        digest=Digest(sha256=bytes.fromhex(file.sha256), size_bytes=file.size_bytes),
        chunks=[
            Digest(sha256=bytes.fromhex(chunk.sha256), size_bytes=chunk.size_bytes) for chunk in file.chunks
        ],
    )


async def parts_of(
    path: Path, file: File, chunks: Sequence[int], resumption: Resumption | None
) -> AsyncIterator[Part]:
    """The parts of these chunks of a file, the next chunk read while this one is on its way. Raises OSError."""
    offsets = store.Blob.of_file(file).offsets
    places = [(index, 0) for index in chunks]
    if resumption is not None and resumption.chunk in chunks:
        rest = [place for place in places if place[0] != resumption.chunk]
        places = [(resumption.chunk, resumption.offset_bytes), *rest]
    ahead: asyncio.Task[list[Part]] | None = None
    try:
        for following in (*places, None):
            parts = [] if ahead is None else await ahead
            ahead = None
            if following is not None:
                place = (offsets[following[0]], file.chunks[following[0]].size_bytes)
                ahead = asyncio.create_task(asyncio.to_thread(_read_chunk, path, *place, *following))
            for part in parts:
                yield part
    finally:
        if ahead is not None:
            ahead.cancel()


def encode_part(chunk: int, offset_bytes: int, data: bytes | memoryview) -> bytes:
    """`WriteBlobRequest(part=BlobPart(…)).SerializeToString()`, some forty times as fast for 256 KiB of data."""
    return b"".join((_head(chunk, offset_bytes, len(data)), data))


def _read_chunk(path: Path, place_bytes: int, size_bytes: int, chunk: int, begin_bytes: int) -> list[Part]:
    """The parts of one chunk, which lies at `place_bytes` of the file, from `begin_bytes` on."""
    with path.open("rb", buffering=0) as source:
        return [
            _read_part(source.fileno(), place_bytes, chunk, offset_bytes, min(PART_BYTES, size_bytes - offset_bytes))
            for offset_bytes in range(begin_bytes, size_bytes, PART_BYTES)
        ]


def _read_part(file: int, place_bytes: int, chunk: int, offset_bytes: int, data_bytes: int) -> Part:
    """Reads into the very bytes that are sent: with a few bytes more in front, which the head replaces.

    `BytesIO` takes and gives bytes without a copy while nobody else holds them.
    """
    head, begin_bytes = _head(chunk, offset_bytes, data_bytes), place_bytes + offset_bytes
    front_bytes = min(len(head), begin_bytes)
    read = os.pread(file, front_bytes + data_bytes, begin_bytes - front_bytes)
    if len(read) != front_bytes + data_bytes:
        raise OSError(errno.EIO, "the file has become shorter")
    if front_bytes < len(head):
        return Part(head + read[front_bytes:], data_bytes)
    message = BytesIO(read)
    del read
    message.write(head)
    return Part(message.getvalue(), data_bytes)


def _head(chunk: int, offset_bytes: int, data_bytes: int) -> bytes:
    """An encoded WriteBlobRequest up to its data (https://protobuf.dev/programming-guides/encoding/)."""
    fields = BlobPart(chunk=chunk, offset_bytes=offset_bytes).SerializeToString()
    head = fields + _DATA_FIELD + _varint(data_bytes)
    return _PART_FIELD + _varint(len(head) + data_bytes) + head


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
