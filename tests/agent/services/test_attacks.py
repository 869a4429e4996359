"""What an attacker on the wire may try, and that it is refused: Uptane's list, and what gRPC and files add to it.

https://uptane.org/docs/2.1.0/standard/uptane-standard §4.3 names the attacks: read updates, deny updates (drop
requests, slow retrieval, freeze, partial bundles), deny functionality (rollback, endless data, mixed bundles,
mix-and-match), control (arbitrary software). Dropped requests are `test_push_over_bad_links`; keys that leaked,
rotated or were revoked are `test_trust`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright.dsse import ENVELOPE_BYTES_MAX, PAYLOAD_TYPE, encode_envelope, key_id, pae
from edgewright.manifest import CHUNK_BYTES_MAX, MANIFEST_BYTES_MAX
from edgewright.trust.document import TRUST_PAYLOAD_TYPE
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.services.uploads import receiving
from edgewright_agent.store import Blob, Space
from edgewright_builder.keys.credentials import create_credentials
from tests.agent.conftest import settings_for
from tests.agent.services.test_deployment_service import reason_of
from tests.support.artifacts import (
    RELEASE_KEY,
    TIMEOUT_SECONDS,
    TestArtifact,
    activate,
    blob_message,
    make_artifact,
    make_blob,
    push,
    sha256,
    upload,
    write_requests,
)
from tests.support.scripted_engine import Script, only_fake
from tests.support.trust_documents import ISSUED, document

DATA = b"".join(bytes([number]) * 1000 for number in range(10))
QUOTA_BYTES = 1_000_000


@contextlib.asynccontextmanager
async def board(store: Path, **changes: Any) -> AsyncIterator[tuple[RunningAgent, grpc.aio.Channel]]:
    settings = settings_for(store, space=Space(quota_bytes=QUOTA_BYTES, reserve_bytes=0), **changes)
    async with (
        run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent,
        grpc.aio.insecure_channel(str(agent.address)) as channel,
    ):
        yield agent, channel


@pytest.fixture
async def agent_and_channel(tmp_path: Path) -> AsyncIterator[tuple[RunningAgent, grpc.aio.Channel]]:
    async with board(tmp_path / "store") as both:
        yield both


@pytest.fixture
def agent(agent_and_channel: tuple[RunningAgent, grpc.aio.Channel]) -> RunningAgent:
    return agent_and_channel[0]


@pytest.fixture
def channel(agent_and_channel: tuple[RunningAgent, grpc.aio.Channel]) -> grpc.aio.Channel:
    return agent_and_channel[1]


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return deployment_pb2_grpc.DeploymentServiceStub(channel)


async def refusal(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason_of(error.value)


async def write(stub: Any, requests: Sequence[deployment_pb2.WriteBlobRequest]) -> int:
    return int((await stub.WriteBlob(iter(requests), timeout=TIMEOUT_SECONDS)).received_bytes)


def stage(stub: Any, manifest: bytes, signature: bytes) -> Any:
    request = deployment_pb2.StageReleaseRequest(manifest=manifest, signature=signature)
    return stub.StageRelease(request, timeout=TIMEOUT_SECONDS)


def sign_bytes(payload: bytes, key: Ed25519PrivateKey = RELEASE_KEY, kind: str = PAYLOAD_TYPE) -> bytes:
    signature = {key_id(key.public_key()): key.sign(pae(kind, payload))}
    return encode_envelope(payload, signature, kind)


def files_in(folder: Path) -> dict[str, int]:
    """All files but the board's clock and its telemetry, which are written when they like."""
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".ring" and path.name != "clock"
    )
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


# Read updates


async def test_read_updates_without_a_certificate_nothing_is_heard(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    create_credentials(keys)
    tls = TlsFiles(keys / "agent.pem", keys / "agent.key", keys / "ca.pem")
    async with board(tmp_path / "store", tls=tls) as (agent, plain):
        anonymous = grpc.ssl_channel_credentials((keys / "ca.pem").read_bytes())
        async with grpc.aio.secure_channel(str(agent.address), anonymous) as tls_channel:
            for channel in (plain, tls_channel):
                stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE


# Deny updates


async def test_slow_retrieval_a_chunk_that_trickles_in_is_given_up(
    agent: RunningAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "CHUNK_SECONDS", 0.0)
    blob = make_blob(DATA, 1000)

    async def trickle() -> AsyncIterator[deployment_pb2.WriteBlobRequest]:
        for request in write_requests(blob, DATA, [0], part_bytes=1):
            yield request

    with pytest.raises(Exception, match="the link is too slow"):
        await receiving.BlobReceiver(agent.store).receive(trickle())
    upload = agent.store.begin_upload(blob)  # and somebody else may send it
    assert upload is not None
    agent.store.end_upload(upload)


async def test_slow_retrieval_many_idle_streams_do_not_fill_the_memory(stub: Any) -> None:
    blobs = [make_blob(bytes([number]) * 100) for number in range(receiving.UPLOADS_MAX + 1)]
    calls = [stub.WriteBlob(timeout=TIMEOUT_SECONDS) for _ in blobs]
    for call, blob in zip(calls, blobs, strict=True):
        await call.write(deployment_pb2.WriteBlobRequest(blob=blob_message(blob)))
        await call.initial_metadata()
    assert await refusal(calls[-1]) == "BUSY"
    for call in calls:
        call.cancel()


async def test_freeze_an_expired_trust_document_stages_nothing(tmp_path: Path) -> None:
    expired = document(1, expires=ISSUED + timedelta(days=1))
    async with board(tmp_path / "store", trust=expired, trusted_keys=()) as (_, channel):
        assert await refusal(push(channel, make_artifact())) == "TRUST_EXPIRED"


async def test_partial_bundle_a_release_without_all_its_files_is_not_staged(
    stub: Any, agent: RunningAgent
) -> None:
    artifact = make_artifact()
    name, data = next(iter(artifact.contents.items()))
    blob = next(blob for blob in artifact.blobs if blob.sha256 == name)
    await write(stub, write_requests(blob, data, list(range(len(blob.chunks)))))
    assert await refusal(stage(stub, artifact.manifest_bytes, artifact.envelope)) == "BLOB_MISSING"
    assert agent.store.releases() == {}


# Deny functionality


async def test_rollback_an_older_release_is_neither_staged_nor_activated(channel: grpc.aio.Channel) -> None:
    staged_before = await push(channel, make_artifact(version="1.0", release_counter=1))
    for counter in (5, 6):
        await activate(
            channel, await push(channel, make_artifact(version=f"{counter}.0", release_counter=counter))
        )
    assert await refusal(push(channel, make_artifact(version="4.0", release_counter=4))) == "DOWNGRADE"
    assert await refusal(activate(channel, staged_before)) == "DOWNGRADE"


async def test_replay_an_upload_sent_again_changes_nothing(stub: Any, agent: RunningAgent) -> None:
    blob = make_blob(DATA, 1000)
    requests = write_requests(blob, DATA, list(range(10)))
    assert await write(stub, requests) == len(DATA)
    before = files_in(agent.store.layout.root)
    assert await write(stub, requests) == 0
    assert files_in(agent.store.layout.root) == before


@pytest.mark.parametrize("chunk_again", [0, 1])
async def test_endless_data_a_chunk_counts_once(stub: Any, chunk_again: int) -> None:
    blob = make_blob(DATA, 1000)
    requests = write_requests(blob, DATA, [0, 1, chunk_again])
    with pytest.raises(grpc.aio.AioRpcError, match="came a second time") as error:
        await write(stub, requests)
    assert reason_of(error.value) == "INVALID_ARGUMENT"


async def test_endless_data_a_chunk_ends_where_it_said(stub: Any) -> None:
    requests = write_requests(make_blob(DATA, 1000), DATA, [0])
    requests[1].part.data = b"x" * 1001
    assert await refusal(write(stub, requests)) == "INVALID_ARGUMENT"


async def test_endless_data_a_message_beyond_every_bound_is_cut_off(stub: Any) -> None:
    requests = write_requests(make_blob(DATA, 1000), DATA, [0])
    requests[1].part.data = bytes(21 * 1024 * 1024)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await write(stub, requests)
    assert error.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)


async def test_endless_data_a_size_beyond_the_quota_claims_no_space(stub: Any, agent: RunningAgent) -> None:
    chunks = tuple((sha256(b"%d" % index), CHUNK_BYTES_MAX) for index in range(2000))
    huge = Blob(sha256(b"huge"), 2000 * CHUNK_BYTES_MAX, chunks)
    before = files_in(agent.store.layout.root)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await write(stub, [deployment_pb2.WriteBlobRequest(blob=blob_message(huge))])
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert files_in(agent.store.layout.root) == before


@pytest.mark.parametrize(
    ("manifest_bytes", "envelope_bytes"), [(MANIFEST_BYTES_MAX + 1, 10), (10, ENVELOPE_BYTES_MAX + 1)]
)
async def test_endless_data_a_manifest_or_envelope_beyond_its_bound_is_not_parsed(
    stub: Any, manifest_bytes: int, envelope_bytes: int
) -> None:
    found = await refusal(stage(stub, b" " * manifest_bytes, b" " * envelope_bytes))
    assert found in ("SIGNATURE_INVALID", "MANIFEST_INVALID")


async def test_endless_data_nesting_without_end_is_refused(stub: Any) -> None:
    deep = b"[" * 1_000_000
    assert await refusal(stage(stub, b"{}", deep)) == "SIGNATURE_INVALID"
    assert await refusal(stage(stub, deep, sign_bytes(deep))) == "MANIFEST_INVALID"


async def test_endless_data_too_many_blobs_are_refused_in_one_question(stub: Any) -> None:
    blobs = [deployment_pb2.Blob()] * 10_001
    request = deployment_pb2.FindMissingBlobsRequest(blobs=blobs)
    assert await refusal(stub.FindMissingBlobs(request, timeout=TIMEOUT_SECONDS)) == "INVALID_ARGUMENT"


async def test_mix_and_match_the_signature_of_one_release_does_not_sign_another(stub: Any) -> None:
    ours, other = make_artifact(version="1.0"), make_artifact(version="2.0")
    assert await refusal(stage(stub, ours.manifest_bytes, other.envelope)) == "SIGNATURE_INVALID"


@pytest.mark.parametrize("announced", [False, True])
async def test_mixed_bundle_the_chunks_of_one_file_do_not_make_another(
    stub: Any, agent: RunningAgent, announced: bool
) -> None:
    """Whether or not the board has seen the signed manifest that says which chunks the file has."""
    artifact = make_artifact({"engine/model.bin": DATA}, chunk_bytes=1000)
    if announced:
        assert await refusal(stage(stub, artifact.manifest_bytes, artifact.envelope)) == "BLOB_MISSING"
    evil = DATA[::-1]
    name = artifact.blobs[0].sha256
    poisoned = Blob(name, len(evil), make_blob(evil, 1000).chunks)
    assert await refusal(write(stub, write_requests(poisoned, evil, list(range(10))))) == "DIGEST_MISMATCH"
    assert name not in agent.store.blob_bytes()


async def test_wrong_device_an_artifact_for_another_board_is_refused(channel: grpc.aio.Channel) -> None:
    artifact = make_artifact(device_profiles=["jetson-orin-nano-8gb"])
    assert await refusal(push(channel, artifact)) == "DEVICE_MISMATCH"


# Control


async def test_arbitrary_software_signed_by_a_stranger_is_refused(channel: grpc.aio.Channel) -> None:
    assert await refusal(push(channel, make_artifact(key=Ed25519PrivateKey.generate()))) == "KEY_UNTRUSTED"


@pytest.mark.parametrize("envelope", [b"", b"{}", b'{"payload": "", "payloadType": "", "signatures": []}'])
async def test_arbitrary_software_without_a_signature_is_refused(stub: Any, envelope: bytes) -> None:
    artifact = make_artifact()
    assert await refusal(stage(stub, artifact.manifest_bytes, envelope)) == "SIGNATURE_INVALID"


async def test_arbitrary_software_a_trust_documents_signature_is_none_of_a_manifest(stub: Any) -> None:
    manifest = make_artifact().manifest_bytes
    envelope = sign_bytes(manifest, kind=TRUST_PAYLOAD_TYPE)
    assert await refusal(stage(stub, manifest, envelope)) == "SIGNATURE_INVALID"


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "engine/../../evil",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/",
        "",
        ".",
        "..",
        "a\0b",
        "a\\b",
        "~/a",
        "é",
    ],
)
async def test_arbitrary_software_no_path_of_a_signed_manifest_leaves_its_release(
    stub: Any, tmp_path: Path, agent: RunningAgent, path: str
) -> None:
    """Even where the release key is the attacker's."""
    artifact = make_artifact({"engine/model.bin": DATA}, chunk_bytes=1000)
    await write(stub, write_requests(artifact.blobs[0], DATA, list(range(10))))
    fields = json.loads(artifact.manifest_bytes)
    fields["files"][0]["path"] = path
    manifest = json.dumps(fields).encode()
    before = files_in(tmp_path)
    assert await refusal(stage(stub, manifest, sign_bytes(manifest))) == "MANIFEST_INVALID"
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("digest", [b"", b"../../etc/passwd", b"\0" * 31, b"/" * 33], ids=len)
async def test_arbitrary_software_a_digest_is_32_bytes_and_never_a_path(
    stub: Any, tmp_path: Path, agent: RunningAgent, digest: bytes
) -> None:
    message = blob_message(make_blob(DATA, 1000))
    message.digest.sha256 = digest
    before = files_in(tmp_path)
    calls = [
        write(stub, [deployment_pb2.WriteBlobRequest(blob=message)]),
        stub.QueryWriteStatus(deployment_pb2.QueryWriteStatusRequest(sha256=digest), timeout=TIMEOUT_SECONDS),
        stub.ActivateRelease(deployment_pb2.ActivateReleaseRequest(release=digest), timeout=TIMEOUT_SECONDS),
        stub.DeleteRelease(deployment_pb2.DeleteReleaseRequest(release=digest), timeout=TIMEOUT_SECONDS),
    ]
    for call in calls:
        assert await refusal(call) == "INVALID_ARGUMENT"
    assert files_in(tmp_path) == before


async def test_what_was_refused_is_none_of_what_is_served(
    channel: grpc.aio.Channel, agent: RunningAgent
) -> None:
    good = await push(channel, make_artifact())
    await activate(channel, good)
    bad: list[TestArtifact] = [
        make_artifact(version="2.0", key=Ed25519PrivateKey.generate()),
        make_artifact(version="3.0", device_profiles=["jetson-orin-nano-8gb"]),
    ]
    for artifact in bad:
        await upload(channel, artifact)
        await refusal(push(channel, artifact))
    assert set(agent.store.releases()) == {good.hex()}
    assert agent.deployer.state.active == good.hex()
