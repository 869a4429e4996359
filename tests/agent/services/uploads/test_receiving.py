"""What a WriteBlob stream may rely on: where it goes on, when parts are welcome, and that it hears why it ended."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewright.durable import FileSystem
from edgewright.errors import InputError, OutsideError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.server import RunningAgent
from edgewright_agent.services.uploads.receiving import BlobReceiver
from edgewright_agent.store import Space, Store
from edgewright_agent.store.blobs import upload as upload_module
from tests.support.artifacts import TIMEOUT_SECONDS, blob_message, make_blob, write_requests

DATA = b"".join(bytes([number]) * 1000 for number in range(10))
BLOB = make_blob(DATA, 1000)
Requests = Sequence[deployment_pb2.WriteBlobRequest]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", space=Space(reserve_bytes=0))


class Told:
    """What the receiver says when parts are welcome."""

    def __init__(self) -> None:
        self.go_on: list[str] = []

    async def __call__(self, go_on: str) -> None:
        self.go_on.append(go_on)


async def stream(
    requests: Requests, *, breaks: bool = False
) -> AsyncIterator[deployment_pb2.WriteBlobRequest]:
    for request in requests:
        yield request
    if breaks:
        raise asyncio.CancelledError


async def begin_and_break(receiver: BlobReceiver, parts: int) -> None:
    """Sends the blob's first parts, of 100 bytes each, and loses the link."""
    requests = write_requests(BLOB, DATA, list(range(10)), part_bytes=100)[: 1 + parts]
    with pytest.raises(asyncio.CancelledError):
        await receiver.receive(stream(requests, breaks=True))


def part(chunk: int, offset_bytes: int, data: bytes) -> deployment_pb2.WriteBlobRequest:
    body = deployment_pb2.BlobPart(chunk=chunk, offset_bytes=offset_bytes, data=data)
    return deployment_pb2.WriteBlobRequest(part=body)


async def test_a_broken_stream_goes_on_inside_its_chunk(store: Store) -> None:
    receiver, told = BlobReceiver(store), Told()
    await begin_and_break(receiver, 23)
    rest = [part(2, 300, DATA[2300:3000]), *write_requests(BLOB, DATA, list(range(3, 10)))[1:]]
    received = await receiver.receive(stream([*write_requests(BLOB, DATA, []), *rest]), told)
    assert told.go_on == ["2 300"]
    assert received == 7700
    assert store.write_status(BLOB.sha256).complete


async def test_a_client_need_not_go_on_inside_a_chunk(store: Store) -> None:
    receiver = BlobReceiver(store)
    await begin_and_break(receiver, 23)
    await receiver.receive(stream(write_requests(BLOB, DATA, list(range(2, 10)))))
    assert store.write_status(BLOB.sha256).complete


async def test_the_beginning_of_a_chunk_survives_a_stream_that_brings_nothing(store: Store) -> None:
    receiver, told = BlobReceiver(store), Told()
    await begin_and_break(receiver, 23)
    with pytest.raises(InputError, match="8 chunks are missing"):
        await receiver.receive(stream(write_requests(BLOB, DATA, [])), told)
    with pytest.raises(InputError):
        await receiver.receive(stream(write_requests(BLOB, DATA, [])), told)
    assert told.go_on == ["2 300", "2 300"]


async def test_the_beginning_of_a_chunk_means_nothing_under_another_cut(store: Store) -> None:
    receiver, told = BlobReceiver(store), Told()
    await begin_and_break(receiver, 23)
    other = make_blob(DATA, 2000)
    await receiver.receive(stream(write_requests(other, DATA, list(range(5)))), told)
    assert told.go_on == [""]


async def test_a_wrong_beginning_is_refused_with_its_chunk_and_then_forgotten(store: Store) -> None:
    receiver, told = BlobReceiver(store), Told()
    wrong = [*write_requests(BLOB, DATA, []), part(0, 0, b"wrong" * 20)]
    with pytest.raises(asyncio.CancelledError):
        await receiver.receive(stream(wrong, breaks=True))
    with pytest.raises(InputError) as error:
        await receiver.receive(stream([*write_requests(BLOB, DATA, []), part(0, 100, DATA[100:1000])]), told)
    assert error.value.reason == Reason.REASON_DIGEST_MISMATCH
    await receiver.receive(stream(write_requests(BLOB, DATA, list(range(10)))), told)
    assert told.go_on == ["0 100", ""]


async def test_a_slow_disk_is_not_taken_for_a_silent_client(tmp_path: Path) -> None:
    class SlowDisk(FileSystem):
        def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
            time.sleep(0.05)
            super().write(file, data, offset)

    store = Store(tmp_path, space=Space(reserve_bytes=0), fs=SlowDisk())
    received = await BlobReceiver(store, stall_seconds=0.04).receive(
        stream(write_requests(BLOB, DATA, list(range(10))))
    )
    assert received == len(DATA)


class HeldSync(FileSystem):
    """`fdatasync` waits to be let go, and may fail."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.fails = False

    def sync_data(self, file: int) -> None:
        assert self.go.wait(20)
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_data(file)


async def test_chunks_arrive_while_others_are_synced_and_only_synced_ones_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "FLUSH_BYTES", 8000)
    fs = HeldSync()
    store = Store(tmp_path, space=Space(reserve_bytes=0), fs=fs)
    receiving = asyncio.create_task(
        BlobReceiver(store).receive(stream(write_requests(BLOB, DATA, list(range(10)))))
    )
    data = store.layout.partial_data(BLOB.sha256)
    while not data.exists() or data.read_bytes()[5000:6000] != DATA[5000:6000]:
        await asyncio.sleep(0.005)
    assert store.write_status(BLOB.sha256).durable_bytes == 0  # written, and the sync under way
    fs.go.set()
    assert await receiving == len(DATA)
    assert store.write_status(BLOB.sha256).complete


async def test_a_sync_that_failed_is_not_believed_later(tmp_path: Path) -> None:
    fs = HeldSync()
    fs.fails = True
    fs.go.set()
    store = Store(tmp_path, space=Space(reserve_bytes=0), fs=fs)
    upload = store.begin_upload(BLOB)
    assert upload is not None
    upload.write_chunk(0, DATA[:1000])
    with pytest.raises(OutsideError):
        upload.flush()
    fs.fails = False
    upload.write_chunk(1, DATA[1000:2000])
    store.end_upload(upload)
    status = store.write_status(BLOB.sha256)
    assert [(span.first, span.count) for span in status.durable_chunks] == [(1, 1)]


# Over the wire


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return deployment_pb2_grpc.DeploymentServiceStub(channel)


async def status_of(stub: Any, sha256: str) -> deployment_pb2.QueryWriteStatusResponse:
    request = deployment_pb2.QueryWriteStatusRequest(sha256=bytes.fromhex(sha256))
    response: deployment_pb2.QueryWriteStatusResponse = await stub.QueryWriteStatus(
        request, timeout=TIMEOUT_SECONDS
    )
    return response


async def test_parts_are_welcome_once_the_initial_metadata_is_there(stub: Any) -> None:
    call = stub.WriteBlob(timeout=TIMEOUT_SECONDS)
    await call.write(deployment_pb2.WriteBlobRequest(blob=blob_message(BLOB)))
    assert dict(await call.initial_metadata()) == {"edgewright-accepted": ""}
    for request in write_requests(BLOB, DATA, list(range(10)))[1:]:
        await call.write(request)
    await call.done_writing()
    assert (await call).received_bytes == len(DATA)
    again = stub.WriteBlob(timeout=TIMEOUT_SECONDS)  # and nothing is welcome of a blob that is here
    await again.write(deployment_pb2.WriteBlobRequest(blob=blob_message(BLOB)))
    assert "edgewright-accepted" not in dict(await again.initial_metadata())
    assert (await again).received_bytes == 0


async def test_a_refusal_can_be_asked_for_until_the_next_try(stub: Any) -> None:
    requests = write_requests(BLOB, DATA, [0, 1])
    requests[1].part.data = b"y" * 1000
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.WriteBlob(iter(requests), timeout=TIMEOUT_SECONDS)
    status = await status_of(stub, BLOB.sha256)
    assert status.last_refusal.reason == Reason.REASON_DIGEST_MISMATCH
    assert "Send it again" in status.last_refusal.message
    await stub.WriteBlob(iter(write_requests(BLOB, DATA, list(range(10)))), timeout=TIMEOUT_SECONDS)
    assert not (await status_of(stub, BLOB.sha256)).HasField("last_refusal")


async def test_a_client_that_writes_on_hears_the_refusal_and_not_its_own_broken_pipe(
    stub: Any, running_agent: RunningAgent
) -> None:
    """For any client library: what it has written already is read before the call is ended."""
    data = bytes(2 * 1024 * 1024)
    blob = make_blob(data, 512 * 1024)
    requests = write_requests(blob, data, [0, 1, 2, 3], part_bytes=64 * 1024)
    requests[1].part.data = b"y" * 64 * 1024
    for _ in range(10):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.WriteBlob(iter(requests), timeout=TIMEOUT_SECONDS)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
