"""A blob as the messages of one WriteBlob, read ahead and encoded without copying twice."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

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


@dataclass(frozen=True)
class Part:
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
    begin_bytes = 0
    if resumption is not None and resumption.chunk in chunks:
        chunks = [resumption.chunk, *(index for index in chunks if index != resumption.chunk)]
        begin_bytes = resumption.offset_bytes
    async for index, data in _chunks(path, file, chunks):
        for offset_bytes in range(begin_bytes, len(data), PART_BYTES):
            part = data[offset_bytes : offset_bytes + PART_BYTES]
            yield Part(encode_part(index, offset_bytes, part), len(part))
        begin_bytes = 0


def encode_part(chunk: int, offset_bytes: int, data: bytes | memoryview) -> bytes:
    """`WriteBlobRequest(part=BlobPart(…)).SerializeToString()`, some forty times as fast for 256 KiB of data.

    The encoding: https://protobuf.dev/programming-guides/encoding/.
    """
    fields = BlobPart(chunk=chunk, offset_bytes=offset_bytes).SerializeToString()
    head = fields + _DATA_FIELD + _varint(len(data))
    return b"".join((_PART_FIELD, _varint(len(head) + len(data)), head, data))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


async def _chunks(path: Path, file: File, indices: Sequence[int]) -> AsyncIterator[tuple[int, memoryview]]:
    """Each chunk's bytes, which hold until the next chunk is asked for."""
    offsets = store.Blob.of_file(file).offsets
    longest_bytes = max((file.chunks[index].size_bytes for index in indices), default=0)
    buffers = [memoryview(bytearray(longest_bytes)) for _ in range(2)]  # one is read while one is sent

    def read(position: int) -> memoryview:
        index = indices[position]
        data = buffers[position % 2][: file.chunks[index].size_bytes]
        with path.open("rb", buffering=0) as source:
            source.seek(offsets[index])
            _fill(source, data)
        return data

    ahead: asyncio.Task[memoryview] | None = None
    try:
        for position, index in enumerate(indices):
            data = await (ahead or asyncio.to_thread(read, position))
            more = position + 1 < len(indices)
            ahead = asyncio.create_task(asyncio.to_thread(read, position + 1)) if more else None
            yield index, data
    finally:
        if ahead is not None:
            ahead.cancel()


def _fill(source: RawIOBase, data: memoryview) -> None:
    while data:
        count = source.readinto(data)
        if not count:
            raise OSError(errno.EIO, "the file has become shorter")
        data = data[count:]
