"""Small signed artifacts in memory, and the calls that bring one onto an agent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright.dsse import PAYLOAD_TYPE, encode_envelope, key_id, pae
from edgewright.manifest import Manifest, manifest_digest
from edgewright.v1 import common_pb2, deployment_pb2, deployment_pb2_grpc
from edgewright_agent.store import Blob, ChunkBuffer, Store

TIMEOUT_SECONDS = 30.0
RELEASE_KEY = Ed25519PrivateKey.generate()
TREE = {"engine/model.bin": b"weights" * 4000, "tokenizer/tokenizer.json": b'{"version": "1.0"}'}
FIELDS: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0",
    "device_profiles": ["raspberry-pi-5-8gb"],
    "engine": {"kind": "fake"},
    "model": {
        "architecture": "llama", "parameters": 1000, "layers": 2, "hidden_size": 8, "vocab_size": 32,
        "tied_embeddings": True, "weight_bits": 4, "embedding_bits": 8, "group_size": 64,
    },
    "limits": {"context_tokens": 256},
    "memory": {
        "budget_bytes": 2**30, "predicted_peak_bytes": 2**20, "error_bytes": 1024, "calibrated_on": "tests",
    },
}  # fmt: skip


@dataclass(frozen=True)
class TestArtifact:
    """What a host would send."""

    __test__ = False

    manifest: Manifest
    manifest_bytes: bytes
    envelope: bytes
    contents: Mapping[str, bytes]  # by SHA-256

    @property
    def digest(self) -> str:
        return manifest_digest(self.manifest_bytes)

    @property
    def blobs(self) -> list[Blob]:
        return [Blob.of_file(file) for file in self.manifest.files]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cut(data: bytes, chunk_bytes: int) -> list[bytes]:
    return [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]


def make_blob(data: bytes, chunk_bytes: int = 1024) -> Blob:
    chunks = tuple((sha256(part), len(part)) for part in cut(data, chunk_bytes))
    return Blob(sha256(data), len(data), chunks)


def make_artifact(
    tree: Mapping[str, bytes] = TREE,
    *,
    key: Ed25519PrivateKey = RELEASE_KEY,
    chunk_bytes: int = 4096,
    **fields: Any,
) -> TestArtifact:
    files = [_file(path, data, chunk_bytes) for path, data in tree.items()]
    manifest = Manifest.model_validate({**FIELDS, **fields, "files": files})
    contents = {sha256(data): data for data in tree.values()}
    return sign(manifest, contents, key)


def sign(manifest: Manifest, contents: Mapping[str, bytes], key: Ed25519PrivateKey) -> TestArtifact:
    data = manifest.to_bytes()
    envelope = encode_envelope(data, {key_id(key.public_key()): key.sign(pae(PAYLOAD_TYPE, data))})
    return TestArtifact(manifest, data, envelope, contents)


def _file(path: str, data: bytes, chunk_bytes: int) -> dict[str, Any]:
    blob = make_blob(data, chunk_bytes)
    chunks = [{"sha256": name, "size_bytes": size} for name, size in blob.chunks]
    return {"path": path, "sha256": blob.sha256, "size_bytes": blob.size_bytes, "chunks": chunks}


def put_blob(store: Store, data: bytes, chunk_bytes: int = 1024) -> Blob:
    blob = make_blob(data, chunk_bytes)
    upload = store.begin_upload(blob)
    if upload is None:
        return blob
    complete, buffer = False, ChunkBuffer(chunk_bytes)
    try:
        for index in set(range(len(blob.chunks))) - upload.present:
            start, size_bytes = blob.offsets[index], blob.chunks[index][1]
            room = buffer.at(start, size_bytes)  # as a chunk that was received lies
            room[:] = data[start : start + size_bytes]
            upload.write_chunk(index, room)
        complete = True
    finally:
        store.end_upload(upload, complete=complete)
    return blob


def stage(store: Store, artifact: TestArtifact, chunk_bytes: int = 4096) -> None:
    for data in artifact.contents.values():
        put_blob(store, data, chunk_bytes)
    store.stage(artifact.manifest, artifact.manifest_bytes, artifact.envelope)


def blob_message(blob: Blob) -> deployment_pb2.Blob:
    chunks = [common_pb2.Digest(sha256=bytes.fromhex(name), size_bytes=size) for name, size in blob.chunks]
    digest = common_pb2.Digest(sha256=bytes.fromhex(blob.sha256), size_bytes=blob.size_bytes)
    return deployment_pb2.Blob(digest=digest, chunks=chunks)


def write_requests(
    blob: Blob, data: bytes, chunks: list[int], part_bytes: int = 1024
) -> list[deployment_pb2.WriteBlobRequest]:
    """The messages of one WriteBlob that sends these chunks."""
    requests = [deployment_pb2.WriteBlobRequest(blob=blob_message(blob))]
    for index in chunks:
        start, size = blob.offsets[index], blob.chunks[index][1]
        chunk = data[start : start + size]
        requests += [
            deployment_pb2.WriteBlobRequest(
                part=deployment_pb2.BlobPart(
                    chunk=index, offset_bytes=offset, data=chunk[offset : offset + part_bytes]
                )
            )
            for offset in range(0, size, part_bytes)
        ]
    return requests


async def upload(channel: grpc.aio.Channel, artifact: TestArtifact) -> int:
    """Sends what is missing; returns the bytes sent."""
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    blobs = {blob.sha256: blob for blob in artifact.blobs}
    question = deployment_pb2.FindMissingBlobsRequest(blobs=[blob_message(blob) for blob in blobs.values()])
    answer = await stub.FindMissingBlobs(question, timeout=TIMEOUT_SECONDS)
    sent_bytes = 0
    for missing in answer.missing:
        name = missing.sha256.hex()
        chunks = [index for span in missing.chunks for index in range(span.first, span.first + span.count)]
        requests = write_requests(blobs[name], artifact.contents[name], chunks)
        response = await stub.WriteBlob(iter(requests), timeout=TIMEOUT_SECONDS)
        sent_bytes += response.received_bytes
    return sent_bytes


async def push(channel: grpc.aio.Channel, artifact: TestArtifact) -> bytes:
    """Uploads and stages; returns the release."""
    await upload(channel, artifact)
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    request = deployment_pb2.StageReleaseRequest(
        manifest=artifact.manifest_bytes, signature=artifact.envelope
    )
    return (await stub.StageRelease(request, timeout=TIMEOUT_SECONDS)).release


async def activate(
    channel: grpc.aio.Channel, release: bytes, *, force: bool = False
) -> list[deployment_pb2.WatchDeploymentResponse]:
    """Activates and watches until the board is at rest."""
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    request = deployment_pb2.ActivateReleaseRequest(release=release, force=force)
    await stub.ActivateRelease(request, timeout=TIMEOUT_SECONDS)
    watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=TIMEOUT_SECONDS)
    return [step async for step in watch]
