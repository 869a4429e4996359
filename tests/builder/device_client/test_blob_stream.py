"""A blob as messages, and that a host always hears the board's own refusal."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import InputError
from edgewright.manifest import File
from edgewright.v1.common_pb2 import Reason
from edgewright.v1.deployment_pb2 import BlobPart, WriteBlobRequest
from edgewright_agent.server import run_agent
from edgewright_builder.artifact.artifact import describe_file
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.blob_parts import (
    PART_BYTES,
    PartMessage,
    Resumption,
    blob_of,
    encode_part,
    parts_of,
)
from edgewright_builder.device_client.client import DeviceClient
from tests.agent.conftest import settings_for
from tests.support.scripted_engine import Script, only_fake

MIB = 1024 * 1024
DATA = random.Random(5).randbytes(9 * MIB)  # chunks of 4, 4 and 1 MiB


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blob") / "model.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module")
def file(path: Path) -> File:
    return describe_file(path, "model.bin")


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=300))
def test_a_part_is_encoded_as_protobuf_does(chunk: int, offset_bytes: int, data: bytes) -> None:
    part = BlobPart(chunk=chunk, offset_bytes=offset_bytes, data=data)
    assert WriteBlobRequest.FromString(encode_part(chunk, offset_bytes, data)) == WriteBlobRequest(part=part)


async def sent(path: Path, file: File, chunks: list[int], resumption: Resumption | None) -> list[BlobPart]:
    parts = [part async for part in parts_of(path, file, chunks, resumption)]
    messages = [WriteBlobRequest.FromString(part.message).part for part in parts]
    assert [len(message.data) for message in messages] == [part.data_bytes for part in parts]
    return messages


async def test_the_parts_of_chunks_are_their_bytes_in_order(path: Path, file: File) -> None:
    messages = await sent(path, file, [0, 2], None)
    assert [message.chunk for message in messages] == [0] * 16 + [2] * 4
    assert b"".join(message.data for message in messages) == DATA[: 4 * MIB] + DATA[8 * MIB :]
    assert max(len(message.data) for message in messages) == PART_BYTES


async def test_a_resumed_chunk_comes_first_and_from_where_it_stopped(path: Path, file: File) -> None:
    messages = await sent(path, file, [0, 1, 2], Resumption(1, 3 * MIB + 5))
    assert (messages[0].chunk, messages[0].offset_bytes) == (1, 3 * MIB + 5)
    order = list(dict.fromkeys(message.chunk for message in messages))
    assert order == [1, 0, 2]
    assert b"".join(message.data for message in messages if message.chunk == 1) == DATA[7 * MIB + 5 : 8 * MIB]


async def test_a_resumption_of_a_chunk_that_is_not_missing_is_ignored(path: Path, file: File) -> None:
    messages = await sent(path, file, [0], Resumption(1, 5))
    assert (messages[0].chunk, messages[0].offset_bytes) == (0, 0)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[DeviceClient]:
    settings = settings_for(tmp_path / "store")
    async with (
        run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent,
        DeviceClient(agent.address, None) as client,
    ):
        yield client


async def test_the_boards_refusal_is_heard_every_time_also_in_the_middle_of_writing(
    client: DeviceClient, path: Path, file: File
) -> None:
    """grpc.aio puts "Internal error from Core" in its place whenever a write loses the race."""

    async def wrong(resumption: Resumption | None) -> AsyncGenerator[PartMessage, None]:
        yield PartMessage(encode_part(0, 0, b"x" * PART_BYTES), PART_BYTES)
        yield PartMessage(encode_part(0, 0, b"x" * PART_BYTES), PART_BYTES)  # out of order: refused at once
        for number in range(100):  # 25 MiB more than the board reads before it hangs up
            yield PartMessage(encode_part(0, number, b"x" * PART_BYTES), PART_BYTES)

    for _ in range(10):
        with pytest.raises(InputError) as caught:
            await client.write_blob(blob_of(file), wrong)
        assert caught.value.reason == Reason.REASON_INVALID_ARGUMENT
        assert "is expected" in str(caught.value)


async def test_patience_counts_from_the_first_failure() -> None:
    """A transfer of hours that meets its first failure is not given up."""
    clock = [0.0]
    patience = Patience(90.0, base_seconds=0.001, cap_seconds=0.001, clock=lambda: clock[0])
    clock[0] = 7200.0
    await patience.wait(InputError("the first"))
    clock[0] += 91.0
    with pytest.raises(InputError, match="the second"):
        await patience.wait(InputError("the second"))
    patience.moved()
    await patience.wait(InputError("the third"))
