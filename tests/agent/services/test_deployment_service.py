"""DeploymentService over the wire: resumable uploads, verdicts with their numbers, releases and their states."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from edgewright.durable import FileSystem, Pace
from edgewright.errors import OutsideError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.server import RunningAgent
from edgewright_agent.services.uploads.receiving import BlobReceiver
from edgewright_agent.store import Space, Store
from tests.support.artifacts import (
    RELEASE_KEY,
    TIMEOUT_SECONDS,
    TREE,
    TestArtifact,
    activate,
    blob_message,
    make_artifact,
    make_blob,
    push,
    put_blob,
    sign,
    upload,
    write_requests,
)
from tests.support.scripted_engine import Script

MIXED = b"".join(bytes([number]) * 1000 for number in range(10))


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return deployment_pb2_grpc.DeploymentServiceStub(channel)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    info = detail(error, error_details_pb2.ErrorInfo())
    assert info.domain == "edgewright"
    return str(info.reason)


def detail(error: grpc.aio.AioRpcError, message: Any) -> Any:
    """The detail of this type in the error's status."""
    status = rpc_status.from_call(error)
    (packed,) = [each for each in status.details if each.Is(message.DESCRIPTOR)]
    packed.Unpack(message)
    return message


async def write(stub: Any, requests: Sequence[deployment_pb2.WriteBlobRequest]) -> int:
    response = await stub.WriteBlob(iter(requests), timeout=TIMEOUT_SECONDS)
    return int(response.received_bytes)


async def missing_chunks(stub: Any, data: bytes, chunk_bytes: int = 1000) -> list[tuple[int, int]]:
    request = deployment_pb2.FindMissingBlobsRequest(blobs=[blob_message(make_blob(data, chunk_bytes))])
    answer = await stub.FindMissingBlobs(request, timeout=TIMEOUT_SECONDS)
    return [(span.first, span.count) for blob in answer.missing for span in blob.chunks]


async def test_an_upload_goes_on_where_it_stopped(stub: Any) -> None:
    blob = make_blob(MIXED, 1000)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await write(stub, write_requests(blob, MIXED, [0, 1, 2]))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await missing_chunks(stub, MIXED) == [(3, 7)]
    request = deployment_pb2.QueryWriteStatusRequest(sha256=bytes.fromhex(blob.sha256))
    status = await stub.QueryWriteStatus(request, timeout=TIMEOUT_SECONDS)
    assert (status.complete, status.durable_bytes) == (False, 3000)
    assert await write(stub, write_requests(blob, MIXED, list(range(3, 10)))) == 7000
    assert await missing_chunks(stub, MIXED) == []
    assert await write(stub, write_requests(blob, MIXED, [0])) == 0  # present: succeeds at once


async def test_a_broken_link_keeps_what_came_whole(stub: Any, running_agent: RunningAgent) -> None:
    blob = make_blob(MIXED, 1000)
    call = stub.WriteBlob(timeout=TIMEOUT_SECONDS)
    for request in write_requests(blob, MIXED, [0, 1]):
        await call.write(request)
    data = running_agent.store.layout.partial_data(blob.sha256)
    while not data.exists() or data.read_bytes()[1999:2000] != MIXED[1999:2000]:
        await asyncio.sleep(0.01)
    call.cancel()
    while await missing_chunks(stub, MIXED) != [(2, 8)]:
        await asyncio.sleep(0.01)


class SlowDisk(FileSystem):
    """Takes its time to claim space."""

    def allocate(self, file: int, size_bytes: int) -> None:
        time.sleep(0.2)
        super().allocate(file, size_bytes)


async def test_a_client_that_leaves_at_once_leaves_the_blob_free(tmp_path: Path) -> None:
    async def requests() -> AsyncIterator[deployment_pb2.WriteBlobRequest]:
        yield write_requests(make_blob(MIXED, 1000), MIXED, [])[0]

    store = Store(tmp_path, space=Space(reserve_bytes=0), fs=SlowDisk())
    receiving = asyncio.create_task(BlobReceiver(store).receive(requests()))
    await asyncio.sleep(0.05)
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    upload = store.begin_upload(make_blob(MIXED, 1000))
    assert upload is not None
    store.end_upload(upload)
    store.close()


async def test_a_silent_client_is_given_up_and_the_blob_is_free_again(running_agent: RunningAgent) -> None:
    async def silent() -> AsyncIterator[deployment_pb2.WriteBlobRequest]:
        yield write_requests(make_blob(MIXED, 1000), MIXED, [])[0]
        await asyncio.Event().wait()

    with pytest.raises(OutsideError, match="Nothing came"):
        await BlobReceiver(running_agent.store, stall_seconds=0.01).receive(silent())
    upload = running_agent.store.begin_upload(make_blob(MIXED, 1000))
    assert upload is not None
    running_agent.store.end_upload(upload)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chunk": 10}, "has 10 chunks"),
        ({"offset_bytes": 500}, "is expected"),
        ({"data": b"x" * 1001}, "more came"),
        ({"data": b""}, "parts of 1 to"),
    ],
)
async def test_a_part_out_of_order_or_bounds_is_refused(stub: Any, change: dict[str, Any], says: str) -> None:
    requests = write_requests(make_blob(MIXED, 1000), MIXED, [0])
    for name, value in change.items():
        setattr(requests[1].part, name, value)
    with pytest.raises(grpc.aio.AioRpcError, match=says) as error:
        await write(stub, requests)
    assert reason_of(error.value) == "INVALID_ARGUMENT"


async def test_altered_bytes_are_refused_and_not_kept(stub: Any) -> None:
    requests = write_requests(make_blob(MIXED, 1000), MIXED, [0])
    requests[1].part.data = b"y" * 1000
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await write(stub, requests)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error.value) == "DIGEST_MISMATCH"
    assert await missing_chunks(stub, MIXED) == [(0, 10)]


async def test_a_second_writer_of_a_blob_is_told_to_come_back(stub: Any, running_agent: RunningAgent) -> None:
    blob = make_blob(MIXED, 1000)
    first = stub.WriteBlob(timeout=TIMEOUT_SECONDS)
    await first.write(write_requests(blob, MIXED, [])[0])
    while not running_agent.store.layout.partial_meta(blob.sha256).exists():
        await asyncio.sleep(0.01)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await write(stub, write_requests(blob, MIXED, [0]))
    assert error.value.code() is grpc.StatusCode.ABORTED
    assert reason_of(error.value) == "BUSY"
    assert detail(error.value, error_details_pb2.RetryInfo()).retry_delay.seconds == 1
    first.cancel()


@pytest.mark.parametrize("chunks", [[1000] * 9, [5 * 1024 * 1024], [0]])
async def test_chunks_that_do_not_add_up_are_refused(stub: Any, chunks: list[int]) -> None:
    message = blob_message(make_blob(MIXED, 1000))
    del message.chunks[:]
    for size in chunks:
        message.chunks.add(sha256=b"s" * 32, size_bytes=size)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.FindMissingBlobs(
            deployment_pb2.FindMissingBlobsRequest(blobs=[message]), timeout=TIMEOUT_SECONDS
        )
    assert reason_of(error.value) == "INVALID_ARGUMENT"


async def test_a_second_version_sends_only_what_changed(channel: grpc.aio.Channel) -> None:
    first = make_artifact({**TREE, "engine/model.bin": MIXED}, chunk_bytes=1000)
    await push(channel, first)
    changed = MIXED[:4000] + b"n" * 1000 + MIXED[5000:]
    second = make_artifact({**TREE, "engine/model.bin": changed}, chunk_bytes=1000, version="2.0")
    assert await upload(channel, second) == 1000
    await push(channel, second)


async def refusal(channel: grpc.aio.Channel, artifact: TestArtifact) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await push(channel, artifact)
    return error.value


async def test_an_artifact_for_another_board_is_refused_with_the_numbers(channel: grpc.aio.Channel) -> None:
    error = await refusal(channel, make_artifact(device_profiles=["jetson-nano-4gb"]))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) == "DEVICE_MISMATCH"
    memory = detail(error, deployment_pb2.StageRefusal()).memory
    assert memory.predicted_peak_bytes == 2**20
    assert memory.budget_bytes > 2**30


async def test_an_artifact_over_the_budget_is_refused(channel: grpc.aio.Channel) -> None:
    memory = {
        "budget_bytes": 2**40,
        "predicted_peak_bytes": 2**40,
        "error_bytes": 0,
        "calibrated_on": "tests",
    }
    error = await refusal(channel, make_artifact(memory=memory))
    assert reason_of(error) == "MEMORY_BUDGET"
    assert "predicted to take 1024.00 GiB" in str(error.details())


async def test_an_artifact_over_the_budget_by_less_than_the_predictions_error_is_measured_not_refused(
    channel: grpc.aio.Channel, stub: Any
) -> None:
    board = await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
    memory = {
        "budget_bytes": board.budget_bytes, "predicted_peak_bytes": board.budget_bytes, "error_bytes": 2**20,
        "calibrated_on": "tests",
    }  # fmt: skip
    assert await push(channel, make_artifact(memory=memory))


async def test_an_engine_that_is_not_here_is_refused(channel: grpc.aio.Channel) -> None:
    assert reason_of(await refusal(channel, make_artifact(engine={"kind": "vllm"}))) == "ENGINE_UNAVAILABLE"


async def test_a_signature_by_a_stranger_is_refused(channel: grpc.aio.Channel) -> None:
    error = await refusal(channel, make_artifact(key=Ed25519PrivateKey.generate()))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(error) == "KEY_UNTRUSTED"


async def test_a_manifest_altered_after_signing_is_refused(channel: grpc.aio.Channel, stub: Any) -> None:
    artifact = make_artifact()
    await upload(channel, artifact)
    altered = artifact.manifest_bytes.replace(b'"tiny"', b'"evil"')
    request = deployment_pb2.StageReleaseRequest(manifest=altered, signature=artifact.envelope)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.StageRelease(request, timeout=TIMEOUT_SECONDS)
    assert reason_of(error.value) == "SIGNATURE_INVALID"


async def test_a_signed_manifest_of_another_schema_is_refused(channel: grpc.aio.Channel, stub: Any) -> None:
    artifact = make_artifact()
    changed = artifact.manifest.model_copy(update={"name": "not a name!"})
    artifact = sign(changed, {}, RELEASE_KEY)
    request = deployment_pb2.StageReleaseRequest(
        manifest=artifact.manifest_bytes, signature=artifact.envelope
    )
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.StageRelease(request, timeout=TIMEOUT_SECONDS)
    assert reason_of(error.value) == "MANIFEST_INVALID"


async def test_staging_names_the_blobs_that_are_missing(stub: Any) -> None:
    artifact = make_artifact()
    request = deployment_pb2.StageReleaseRequest(
        manifest=artifact.manifest_bytes, signature=artifact.envelope
    )
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.StageRelease(request, timeout=TIMEOUT_SECONDS)
    assert reason_of(error.value) == "BLOB_MISSING"
    missing = detail(error.value, deployment_pb2.StageRefusal()).missing_blobs
    assert sorted(name.hex() for name in missing) == sorted(artifact.contents)


async def test_staging_twice_succeeds_and_says_so(channel: grpc.aio.Channel, stub: Any) -> None:
    artifact = make_artifact()
    request = deployment_pb2.StageReleaseRequest(
        manifest=artifact.manifest_bytes, signature=artifact.envelope
    )
    await upload(channel, artifact)
    first = await stub.StageRelease(request, timeout=TIMEOUT_SECONDS)
    second = await stub.StageRelease(request, timeout=TIMEOUT_SECONDS)
    assert (first.already_staged, second.already_staged) == (False, True)
    assert first.release == second.release == bytes.fromhex(artifact.digest)


async def test_a_downgrade_is_refused(channel: grpc.aio.Channel) -> None:
    for counter in (5, 6):
        release = await push(channel, make_artifact(version=f"{counter}.0", release_counter=counter))
        await activate(channel, release)
    assert reason_of(await refusal(channel, make_artifact(release_counter=4))) == "DOWNGRADE"


async def test_releases_are_listed_with_what_they_are_to_the_board(
    channel: grpc.aio.Channel, stub: Any
) -> None:
    names = {}
    for version in ("1.0", "2.0", "3.0"):
        names[version] = await push(channel, make_artifact(version=version))
        if version != "3.0":
            await activate(channel, names[version])
    listed = await stub.ListReleases(deployment_pb2.ListReleasesRequest(), timeout=TIMEOUT_SECONDS)
    states = {release.version: release.state for release in listed.releases}
    assert states == {
        "1.0": deployment_pb2.RELEASE_STATE_PREVIOUS,
        "2.0": deployment_pb2.RELEASE_STATE_ACTIVE,
        "3.0": deployment_pb2.RELEASE_STATE_STAGED,
    }
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.DeleteRelease(
            deployment_pb2.DeleteReleaseRequest(release=names["1.0"]), timeout=TIMEOUT_SECONDS
        )
    assert reason_of(error.value) == "RELEASE_IN_USE"
    await stub.DeleteRelease(
        deployment_pb2.DeleteReleaseRequest(release=names["3.0"]), timeout=TIMEOUT_SECONDS
    )
    listed = await stub.ListReleases(deployment_pb2.ListReleasesRequest(), timeout=TIMEOUT_SECONDS)
    assert {release.version for release in listed.releases} == {"1.0", "2.0"}


async def test_rolling_back_serves_the_previous_release(channel: grpc.aio.Channel, stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.RollBack(deployment_pb2.RollBackRequest(), timeout=TIMEOUT_SECONDS)
    assert reason_of(error.value) == "NO_PREVIOUS_RELEASE"
    first = await push(channel, make_artifact(version="1.0"))
    second = await push(channel, make_artifact(version="2.0"))
    for release in (first, second):
        await activate(channel, release)
    response = await stub.RollBack(deployment_pb2.RollBackRequest(), timeout=TIMEOUT_SECONDS)
    assert response.release == first
    watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=TIMEOUT_SECONDS)
    steps = [step async for step in watch]
    assert steps[-1].outcome == deployment_pb2.OUTCOME_ROLLED_BACK
    assert steps[-1].active_release == first


async def test_activating_the_active_release_changes_nothing(
    channel: grpc.aio.Channel, script: Script
) -> None:
    release = await push(channel, make_artifact())
    await activate(channel, release)
    await activate(channel, release)
    assert len(script.engines) == 1


async def test_an_unknown_release_is_not_found(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.ActivateRelease(
            deployment_pb2.ActivateReleaseRequest(release=b"u" * 32), timeout=TIMEOUT_SECONDS
        )
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error.value) == "RELEASE_UNKNOWN"


async def test_a_device_says_what_it_is(stub: Any, running_agent: RunningAgent) -> None:
    device = await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
    assert device.profile_id == "raspberry-pi-5-8gb"
    assert device.phase == deployment_pb2.PHASE_IDLE
    assert device.active_release == b""
    assert 0 < device.memory_available_bytes <= device.memory_total_bytes
    assert device.store_free_bytes > 0
    assert [(engine.kind, engine.available) for engine in device.engines] == [("fake", True)]


async def test_a_client_that_leaves_a_scrub_ends_it_without_a_word_in_the_log(
    stub: Any, running_agent: RunningAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(put_blob, running_agent.store, MIXED)
    reading, go_on, read = threading.Event(), threading.Event(), FileSystem.sha256_on_disk

    def slow(fs: FileSystem, path: Path, pace: Pace) -> str:
        reading.set()
        assert go_on.wait(TIMEOUT_SECONDS)
        return read(fs, path, pace)

    monkeypatch.setattr(FileSystem, "sha256_on_disk", slow)
    call = stub.ScrubStore(deployment_pb2.ScrubStoreRequest())
    assert await asyncio.to_thread(reading.wait, TIMEOUT_SECONDS)
    call.cancel()
    for _ in range(10):  # the board hears of it meanwhile
        await stub.ListReleases(deployment_pb2.ListReleasesRequest(), timeout=TIMEOUT_SECONDS)
    go_on.set()
    while running_agent.store.is_busy:
        await asyncio.sleep(0.01)
    steps = [step async for step in stub.ScrubStore(deployment_pb2.ScrubStoreRequest())]
    assert steps[-1].done
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_failure_of_the_system_is_told_in_a_sentence(
    stub: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(store: Store) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Store, "free_bytes", full)
    with pytest.raises(
        grpc.aio.AioRpcError, match=r"GetDevice failed on the board: .*Too many open"
    ) as error:
        await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "GetDevice failed" in caplog.text
