"""Reads the parts of a WriteBlob stream without copying the bytes they carry."""

from __future__ import annotations

from typing import NamedTuple

from edgewright.errors import InputError
from edgewright.v1.deployment_pb2 import WriteBlobRequest

_PART, _CHUNK, _OFFSET, _DATA = 0x12, 0x08, 0x10, 0x1A  # tags: field number · 8 + wire type
_VARINT_BYTES_MAX = 5  # of a uint32


class ReceivedPart(NamedTuple):
    """A `BlobPart` of the wire contract."""

    chunk: int
    offset_bytes: int
    data: bytes | memoryview


WriteRequest = ReceivedPart | WriteBlobRequest  # a part, or the message that holds whatever else


def parse_write_request(message: bytes) -> WriteRequest:
    """Parses as `WriteBlobRequest.FromString`, which would copy a part's data twice. Raises DecodeError.

    It reads what every encoder writes, fields in order and each once
    (https://protobuf.dev/programming-guides/encoding/). The library reads the rest.
    """
    try:
        return _parse_part(message)
    except (ValueError, IndexError):
        return WriteBlobRequest.FromString(message)


def part_of(request: WriteRequest) -> ReceivedPart:
    """Returns the part; raises InputError for another message."""
    if isinstance(request, ReceivedPart):
        return request
    if request.WhichOneof("content") != "part":
        raise InputError("After the blob come parts and deltas; another message came.")
    return ReceivedPart(request.part.chunk, request.part.offset_bytes, request.part.data)


def _parse_part(message: bytes) -> ReceivedPart:
    """Returns the part. Raises ValueError or IndexError for anything but one plain part."""
    numbers = {_CHUNK: 0, _OFFSET: 0}
    size_bytes, position = _varint(message, 1)
    if message[0] != _PART or position + size_bytes != len(message):
        raise ValueError("not a part, or more than one")
    while (tag := message[position]) != _DATA:
        if tag not in numbers:
            raise ValueError("an unknown field")
        numbers[tag], position = _varint(message, position + 1)
    size_bytes, position = _varint(message, position + 1)
    if position + size_bytes != len(message):
        raise ValueError("the data is not the last field")
    return ReceivedPart(numbers[_CHUNK], numbers[_OFFSET], memoryview(message)[position:])


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Returns the number at `position`, and where the next field begins."""
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        byte = message[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFF, position + index + 1
    raise ValueError("longer than a uint32")
