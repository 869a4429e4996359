"""The parser of WriteBlob reads what the library reads, and copies no data."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import InputError
from edgewright.v1.deployment_pb2 import Blob, BlobPart, ChunkDelta, WriteBlobRequest
from edgewright_agent.services.uploads.parts import ReceivedPart, parse_write_request, part_of

UINT32 = st.integers(0, 2**32 - 1)


def same(message: bytes) -> None:
    """Both say the same of these bytes, be it that they are no message."""
    try:
        expected = WriteBlobRequest.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            parse_write_request(message)
        return
    found = parse_write_request(message)
    if isinstance(found, ReceivedPart):
        part = expected.part
        assert expected.WhichOneof("content") == "part"
        assert (found.chunk, found.offset_bytes, bytes(found.data)) == (
            part.chunk,
            part.offset_bytes,
            part.data,
        )
    else:
        assert found == expected


@given(UINT32, UINT32, st.binary(max_size=300))
def test_a_part_is_read_as_the_library_reads_it(chunk: int, offset_bytes: int, data: bytes) -> None:
    part = BlobPart(chunk=chunk, offset_bytes=offset_bytes, data=data)
    same(WriteBlobRequest(part=part).SerializeToString())


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_library_reads_them(message: bytes) -> None:
    same(message)


@given(
    st.lists(st.tuples(st.sampled_from([0x08, 0x10]), st.binary(min_size=1, max_size=7)), max_size=4),
    st.binary(max_size=20),
    st.integers(-2, 2),
)
def test_odd_encodings_of_a_part_are_read_as_the_library_reads_them(
    numbers: list[tuple[int, bytes]], data: bytes, off: int
) -> None:
    body = b"".join(bytes([tag]) + value for tag, value in numbers) + bytes([0x1A, len(data)]) + data
    same(bytes([0x12, max(0, len(body) + off)]) + body)


@pytest.mark.parametrize("message", [Blob(), ChunkDelta(chunk=3)], ids=["blob", "delta"])
def test_what_is_no_part_is_the_library_s_message(message: Blob | ChunkDelta) -> None:
    name = "blob" if isinstance(message, Blob) else "delta"
    request = WriteBlobRequest(**{name: message})  # type: ignore[arg-type]
    assert parse_write_request(request.SerializeToString()) == request
    with pytest.raises(InputError, match="parts and deltas"):
        part_of(request)


def test_data_are_not_copied() -> None:
    message = WriteBlobRequest(part=BlobPart(chunk=1, offset_bytes=2, data=b"x" * 100)).SerializeToString()
    found = parse_write_request(message)
    assert isinstance(found, ReceivedPart)
    assert isinstance(found.data, memoryview)
    assert found.data.obj is message
