"""A blob as the messages of one WriteBlob, read ahead and encoded without copying twice."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from edgewright.manifest import File
from edgewright.v1.common_pb2 import Digest
from edgewright.v1.deployment_pb2 import Blob, BlobPart
from edgewright_agent import store

PART_BYTES = 256 * 1024  # the fastest message size over loopback that stays far below the 4 MiB limit
_PART_FIELD = b"\x12"  # WriteBlobRequest.part = 2, length-delimited
_DATA_FIELD = b"\x1a"  # BlobPart.data = 3, length-delimited


@dataclass(frozen=True)
class Resumption:
    """Where the board still holds the beginning of a chunk: go on there, with that chunk first."""

    chunk: int
    offset_bytes: int


class PartMessage(NamedTuple):
    """A message and the bytes of the blob it carries."""

    message: bytes  # an encoded WriteBlobRequest
    data_bytes: int


def blob_of(file: File) -> Blob:
    """Returns the blob that holds a manifest's file."""
    return Blob(
        digest=Digest(sha256=bytes.fromhex(file.sha256), size_bytes=file.size_bytes),
        chunks=[
            Digest(sha256=bytes.fromhex(chunk.sha256), size_bytes=chunk.size_bytes) for chunk in file.chunks
        ],
    )


async def parts_of(
    path: Path, file: File, chunks: Sequence[int], resumption: Resumption | None
) -> AsyncIterator[PartMessage]:
    """Yields the parts of these chunks of a file, each read when it is sent. Raises OSError.

    In the loop's own thread: a part that another thread has read comes from another core's cache, which costs more
    than a loop that waits for a page. The disk is asked for the next chunk ahead of time.
    """
    offsets = store.Blob.of_file(file).offsets
    places = [(index, 0) for index in chunks]
    if resumption is not None and resumption.chunk in chunks:
        rest = [place for place in places if place[0] != resumption.chunk]
        places = [(resumption.chunk, resumption.offset_bytes), *rest]
    with path.open("rb", buffering=0) as source:
        for (chunk, begin_bytes), (following, _) in zip(places, places[1:] + places[-1:], strict=True):
            size_bytes = file.chunks[following].size_bytes
            os.posix_fadvise(source.fileno(), offsets[following], size_bytes, os.POSIX_FADV_WILLNEED)
            for part in _parts_of_chunk(source.fileno(), file, chunk, offsets[chunk], begin_bytes):
                yield part


def _parts_of_chunk(
    source: int, file: File, chunk: int, place_bytes: int, begin_bytes: int
) -> Iterator[PartMessage]:
    size_bytes = file.chunks[chunk].size_bytes
    for offset_bytes in range(begin_bytes, size_bytes, PART_BYTES):
        data_bytes = min(PART_BYTES, size_bytes - offset_bytes)
        head = _head(chunk, offset_bytes, data_bytes)
        yield PartMessage(_read_behind(head, source, place_bytes + offset_bytes, data_bytes), data_bytes)


def encode_part(chunk: int, offset_bytes: int, data: bytes | memoryview) -> bytes:
    """`WriteBlobRequest(part=BlobPart(…)).SerializeToString()`, some forty times as fast for 256 KiB of data."""
    return b"".join((_head(chunk, offset_bytes, len(data)), data))


def _read_behind(head: bytes, source: int, begin_bytes: int, data_bytes: int) -> bytes:
    """`head`, then bytes of the file, which are read to where they stay: after a few more that `head` replaces.

    `BytesIO` takes and gives bytes without a copy while nobody else holds them.
    """
    front_bytes = min(len(head), begin_bytes)
    message = BytesIO(os.pread(source, front_bytes + data_bytes, begin_bytes - front_bytes))
    if message.seek(0, os.SEEK_END) != front_bytes + data_bytes:
        raise OSError(errno.EIO, "the file has become shorter")
    if front_bytes < len(head):  # nothing lies in front of a file
        return head + message.getvalue()[front_bytes:]
    message.seek(0)
    message.write(head)
    return message.getvalue()


def _head(chunk: int, offset_bytes: int, data_bytes: int) -> bytes:
    """Returns an encoded WriteBlobRequest up to its data (https://protobuf.dev/programming-guides/encoding/)."""
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
