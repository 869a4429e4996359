"""Brings an artifact to a board: sends what is missing until nothing is, then waits for the verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgewright.v1.common_pb2 import Digest, Reason
from edgewright.v1.deployment_pb2 import Blob, BlobPart, MemoryVerdict, MissingBlob, WriteBlobRequest
from edgewright_agent.errors import BusyError, RefusedError
from edgewright_agent.manifest import File
from edgewright_builder.artifact import Artifact, verify_artifact
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.failures import LinkError
from edgewright_builder.device.patience import Patience
from edgewright_builder.device.verdict import Verdict, watch_verdict

PART_BYTES = 256 * 1024  # the fastest message size over loopback that stays far below the 4 MiB limit


@dataclass(frozen=True)
class Plan:
    """What will travel, known before the first byte does."""

    artifact_bytes: int
    missing_bytes: int
    blobs: int
    missing_blobs: int


@dataclass(frozen=True)
class Sent:
    """How far the transfer is."""

    bytes: int
    total_bytes: int
    bytes_per_second: float


@dataclass(frozen=True)
class PushResult:
    """What a push did. `verdict` is None if the release was only staged."""

    release: str  # SHA-256 of the manifest, in hex
    plan: Plan
    sent_bytes: int
    resumptions: int
    transfer_seconds: float
    memory: MemoryVerdict
    verdict: Verdict | None


@dataclass(frozen=True)
class Listener:
    """Who wants to know. Every function is optional to care about and cheap to call."""

    planned: Callable[[Plan], None] = lambda plan: None
    sent: Callable[[Sent], None] = lambda sent: None
    note: Callable[[str], None] = lambda text: None


async def push(
    client: DeviceClient,
    folder: Path,
    public_key: Ed25519PublicKey | None,
    *,
    activate: bool = True,
    force: bool = False,
    patience_seconds: float = 90.0,
    listener: Listener = Listener(),
) -> PushResult:
    """Verifies the artifact in `folder`, uploads what the board lacks, stages and activates it.

    Where the link drops or the agent restarts, the board is asked what it has and the rest is sent, until
    nothing has moved for `patience_seconds`. Raises InputError for an artifact that was altered, the agent's
    own errors, and OutsideError if the board can't be reached. A release that was rolled back is no error
    here: the verdict says so.
    """
    artifact = await asyncio.to_thread(verify_artifact, folder, public_key)
    return await push_verified(
        client,
        artifact,
        activate=activate,
        force=force,
        patience_seconds=patience_seconds,
        listener=listener,
    )


async def push_verified(
    client: DeviceClient,
    artifact: Artifact,
    *,
    activate: bool = True,
    force: bool = False,
    patience_seconds: float = 90.0,
    listener: Listener = Listener(),
) -> PushResult:
    """`push` of an artifact that was verified before, as for the second board of a fleet."""
    upload = Upload(client, artifact, Patience(patience_seconds), listener)
    plan = await upload.plan()
    listener.planned(plan)
    begin = time.monotonic()
    staged = await upload.run()
    seconds = time.monotonic() - begin
    verdict = None
    if activate:
        release = bytes.fromhex(artifact.digest)
        await _activate(client, release, upload.patience, force=force)
        verdict = await watch_verdict(client, release, upload.patience, listener.note)
    return PushResult(artifact.digest, plan, upload.sent_bytes, upload.resumptions, seconds, staged, verdict)


async def _activate(client: DeviceClient, release: bytes, patience: Patience, *, force: bool) -> None:
    asked_before = False
    while True:
        try:
            return await client.activate(release, force=force)
        except LinkError as error:
            asked_before = True  # and perhaps heard: only the answer may be lost
            await patience.wait(error)
        except BusyError:
            if not asked_before:
                raise
            return None


class Upload:
    """One artifact on its way to one board."""

    def __init__(
        self, client: DeviceClient, artifact: Artifact, patience: Patience, listener: Listener
    ) -> None:
        # Files of the same content are one blob.
        self._files = {bytes.fromhex(file.sha256): file for file in artifact.manifest.files}
        self._client = client
        self._artifact = artifact
        self._listener = listener
        self._begin = 0.0
        self._total_bytes = 0
        self._done_bytes = 0
        self.patience = patience
        self.sent_bytes = 0
        self.resumptions = 0

    async def plan(self) -> Plan:
        """Asks the board what it lacks."""
        missing = await self._missing()
        self._total_bytes = sum(blob.missing_bytes for blob in missing)
        return Plan(self._artifact.manifest.size_bytes, self._total_bytes, len(self._files), len(missing))

    async def run(self) -> MemoryVerdict:
        """Sends until nothing is missing, and stages; returns the board's verdict on the memory."""
        self._begin = time.monotonic()
        while True:
            try:
                for blob in await self._missing():
                    await self._client.write_blob(self._messages(blob))
                return await self._stage()
            except (LinkError, BusyError) as error:
                # Busy: the board may not have noticed yet that our last stream is gone.
                await self.patience.wait(error)
                self.resumptions += 1
                self._listener.note(f"Resuming: {error}")
            except RefusedError as error:
                # A blob can go between writing and staging if the board's garbage collector is that late.
                if error.reason != Reason.REASON_BLOB_MISSING:
                    raise
                await self.patience.wait(error)

    async def _missing(self) -> list[MissingBlob]:
        missing = await self._client.find_missing([_blob(file) for file in self._files.values()])
        remaining_bytes = sum(blob.missing_bytes for blob in missing)
        self.patience.progressed(remaining_bytes)
        self._done_bytes = max(0, self._total_bytes - remaining_bytes)
        return missing

    async def _stage(self) -> MemoryVerdict:
        self._listener.note("The board verifies the release.")
        return (
            await self._client.stage(self._artifact.manifest_bytes, self._artifact.signature_bytes)
        ).memory

    async def _messages(self, missing: MissingBlob) -> AsyncIterator[WriteBlobRequest]:
        file = self._files[missing.sha256]
        yield WriteBlobRequest(blob=_blob(file))
        indices = [index for span in missing.chunks for index in range(span.first, span.first + span.count)]
        async for index, data in _chunks(self._artifact.path(file), file, indices):
            for offset in range(0, len(data), PART_BYTES):
                part = data[offset : offset + PART_BYTES]
                yield WriteBlobRequest(part=BlobPart(chunk=index, offset_bytes=offset, data=part))
                self._count(len(part))

    def _count(self, part_bytes: int) -> None:
        self.sent_bytes += part_bytes
        seconds = max(time.monotonic() - self._begin, 1e-9)
        self._done_bytes += part_bytes
        self._listener.sent(Sent(self._done_bytes, self._total_bytes, self.sent_bytes / seconds))


async def _chunks(path: Path, file: File, indices: list[int]) -> AsyncIterator[tuple[int, bytes]]:
    """The chunks of a file, the next one read while this one is on its way."""
    offsets = [0]
    for chunk in file.chunks:
        offsets.append(offsets[-1] + chunk.size_bytes)

    def read(index: int) -> bytes:
        with path.open("rb") as source:
            source.seek(offsets[index])
            return source.read(file.chunks[index].size_bytes)

    ahead: asyncio.Task[bytes] | None = None
    try:
        for position, index in enumerate(indices):
            data = await (ahead or asyncio.to_thread(read, index))
            following = indices[position + 1 : position + 2]
            ahead = asyncio.create_task(asyncio.to_thread(read, following[0])) if following else None
            yield index, data
    finally:
        if ahead is not None:
            ahead.cancel()


def _blob(file: File) -> Blob:
    return Blob(
        digest=Digest(sha256=bytes.fromhex(file.sha256), size_bytes=file.size_bytes),
        chunks=[
            Digest(sha256=bytes.fromhex(chunk.sha256), size_bytes=chunk.size_bytes) for chunk in file.chunks
        ],
    )
