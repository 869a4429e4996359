"""One artifact on its way to one board: what will travel, sending it, and resuming after the link broke."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from edgewright.errors import BusyError, EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.sizes import format_bytes
from edgewright.v1.common_pb2 import Reason
from edgewright.v1.deployment_pb2 import MemoryVerdict, MissingBlob
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.artifact.delta_encoding import Frames
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.blob_parts import PartMessage, Resumption, blob_of, parts_of
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.push.delta_selection import Deltas, chunk_indices, frame_parts, travelling_bytes

# Small blobs travel beside the large ones, so that no file waits for another to become durable; large ones
# travel one after another, so that a power cut costs one flush window of the agent.
SMALL_BYTES = 4 * 1024 * 1024
# Why a board may refuse a delta, other reasons being the artifact's: its base is gone or another, or it knows none.
DELTA_REASONS = {
    Reason.REASON_UNSPECIFIED,
    Reason.REASON_INVALID_ARGUMENT,
    Reason.REASON_DIGEST_MISMATCH,
    Reason.REASON_DELTA_BASE_MISSING,
}
RATE_SECONDS = 5.0  # what "now" means for a rate
TELL_SECONDS = 0.05  # between two words on how far it is


@dataclass(frozen=True)
class TransferPlan:
    """What will travel, known before the first byte does."""

    artifact_bytes: int
    missing_bytes: int
    blobs: int  # files of the same content are one
    missing_blobs: int
    blob_bytes: int  # of all blobs, here or not
    delta_bytes: int | None = None  # what travels instead of `missing_bytes`; None: the chunks themselves do
    delta_base: str = ""  # digest of the release the board has
    is_adapter: bool = False  # on a base the board has

    @property
    def travelling_bytes(self) -> int:
        """What goes over the link."""
        return self.missing_bytes if self.delta_bytes is None else self.delta_bytes

    @property
    def how(self) -> str:
        """`nothing`; `adapter`; `delta`; `chunks`, where the board has others of the artifact; or `full`."""
        if not self.missing_bytes:
            return "nothing"
        if self.is_adapter:
            return "adapter"
        if self.delta_bytes is not None:
            return "delta"
        return "chunks" if self.missing_bytes < self.blob_bytes else "full"

    @property
    def line(self) -> str:
        """What will travel, as one line."""
        if not self.missing_bytes:
            return f"nothing to send: the board has all {format_bytes(self.artifact_bytes)} of it"
        if self.is_adapter:
            return f"adapter: {format_bytes(self.travelling_bytes)} to send, its base stays where it is"
        missing, files = format_bytes(self.missing_bytes), f"{self.missing_blobs} of {self.blobs} files"
        if self.delta_bytes is not None:
            sizes = f"{format_bytes(self.delta_bytes)} instead of {missing}"
            return f"delta against release {self.delta_base[:12]}: {sizes} to send"
        if self.how == "full":
            return f"full: {missing} to send ({files})"
        return (
            f"chunks: {missing} of {format_bytes(self.artifact_bytes)} to send, the rest is there ({files})"
        )


@dataclass(frozen=True)
class Sent:
    """How far the transfer is."""

    bytes: int
    total_bytes: int
    bytes_per_second: float  # over the last seconds


@dataclass(frozen=True)
class TransferListener:
    """Who wants to know. Every function is optional to care about and cheap to call."""

    planned: Callable[[TransferPlan], None] = lambda plan: None
    sent: Callable[[Sent], None] = lambda sent: None
    note: Callable[[str], None] = lambda text: None


class Transfer:
    """Sends until the board lacks nothing."""

    def __init__(
        self,
        client: DeviceClient,
        artifact: Artifact,
        patience: Patience,
        listener: TransferListener,
        deltas: Deltas | None = None,
    ) -> None:
        # Files of the same content are one blob.
        self._files = {bytes.fromhex(file.sha256): file for file in artifact.manifest.files}
        self._client = client
        self._artifact = artifact
        self._listener = listener
        self._deltas = deltas
        self._frames: Frames | None = None
        self._resumed: dict[
            tuple[bytes, int], int
        ] = {}  # by blob and chunk, the furthest that a stream went on from
        self._rate = _Rate()
        self._total_bytes = 0
        self._done_bytes = 0
        self._told_at = 0.0
        self.patience = patience
        self.sent_bytes = 0
        self.resumptions = 0

    async def plan(self) -> TransferPlan:
        """Asks the board what it lacks; patiently, if it has ever answered."""
        missing = await self._missing_once_reachable()
        missing_bytes = sum(blob.missing_bytes for blob in missing)
        if self._deltas is not None:
            self._frames = await self._deltas.frames_for(self._client, missing, self._listener.note)
        self._total_bytes = travelling_bytes(self._files, missing, self._frames)
        blob_bytes = sum(file.size_bytes for file in self._files.values())
        plan = TransferPlan(
            self._artifact.manifest.size_bytes, missing_bytes, len(self._files), len(missing), blob_bytes,
            is_adapter=self._artifact.manifest.kind == "adapter",
        )  # fmt: skip
        if self._frames is None or self._total_bytes == missing_bytes:
            return plan
        return replace(plan, delta_bytes=self._total_bytes, delta_base=self._frames.maker.old.digest)

    async def run(self) -> MemoryVerdict:
        """Sends until nothing is missing, and stages; returns the board's verdict on the memory.

        Asks for the verdict first: a board that will refuse the release does so before its bytes travel, and
        knows from the signed manifest what to expect.
        """
        self._rate = _Rate()  # making a delta took its time
        while True:
            try:
                try:
                    return await self._stage()
                except RefusedError as error:
                    if error.reason != Reason.REASON_BLOB_MISSING:
                        raise
                await self._send_all(await self._missing())
                self._listener.note("The board verifies the release.")
                return await self._stage()
            except (LinkError, BusyError) as error:
                # Busy: the board may not have noticed yet that our last stream is gone.
                await self.patience.wait(error)
                self.resumptions += 1
                self._listener.note(f"Resuming: {error}")
            except (InputError, RefusedError) as error:
                if self._frames is not None and error.reason in DELTA_REASONS:
                    self._give_up_delta(error)
                    continue
                # A blob can go between writing and staging if the board's garbage collector is that late.
                if error.reason != Reason.REASON_BLOB_MISSING:
                    raise
                await self.patience.wait(error)

    def _give_up_delta(self, error: EdgewrightError) -> None:
        """What the board could not make from what it has travels as it is."""
        self._frames = None
        self._listener.note(f"The board can't use the delta; the chunks themselves follow. {error}")

    async def _missing_once_reachable(self) -> list[MissingBlob]:
        while True:
            try:
                return await self._missing()
            except LinkError as error:
                if not self._client.reached:
                    raise  # a wrong address does not get better
                await self.patience.wait(error)

    async def _missing(self) -> list[MissingBlob]:
        missing = await self._client.find_missing([blob_of(file) for file in self._files.values()])
        remaining_bytes = travelling_bytes(self._files, missing, self._frames)
        self._total_bytes = max(self._total_bytes, remaining_bytes)  # more, where a delta is given up
        self.patience.progressed(remaining_bytes)
        self._done_bytes = max(0, self._total_bytes - remaining_bytes)
        return missing

    async def _send_all(self, missing: list[MissingBlob]) -> None:
        async def stream(blobs: list[MissingBlob]) -> None:
            for blob in blobs:
                await self._send(blob)

        large = [blob for blob in missing if blob.missing_bytes > SMALL_BYTES]
        small = [blob for blob in missing if blob.missing_bytes <= SMALL_BYTES]
        streams = [asyncio.create_task(stream(blobs)) for blobs in (large, small)]
        try:
            await asyncio.gather(*streams)
        finally:
            for each in streams:
                each.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    async def _send(self, missing: MissingBlob) -> None:
        file = self._files[missing.sha256]
        path = self._artifact.path(file)
        frames, plain, framed = self._frames, list[int](), list[int]()
        for index in chunk_indices(missing):
            in_frame = frames is not None and frames.size_bytes(file.sha256, index) is not None
            (framed if in_frame else plain).append(index)

        async def counted(resumption: Resumption | None) -> AsyncGenerator[PartMessage, None]:
            self._note_resumption(missing.sha256, resumption)
            try:
                async for part in parts_of(path, file, plain, resumption):
                    yield part
                    self._count(part.data_bytes)
                if frames is not None:
                    async for part in frame_parts(frames, file.sha256, framed):
                        yield part
                        self._count(part.data_bytes)
            except OSError as error:
                raise OutsideError(
                    f"{path} can't be read ({error.strerror}). Check the disk it is on."
                ) from error

        await self._client.write_blob(blob_of(file), counted)

    def _note_resumption(self, sha256: bytes, resumption: Resumption | None) -> None:
        """Getting on inside a chunk is movement too: a link may break more often than a chunk is whole."""
        if resumption is None:
            return
        place = sha256, resumption.chunk
        if resumption.offset_bytes > self._resumed.get(place, -1):
            self._resumed[place] = resumption.offset_bytes
            self.patience.moved()

    async def _stage(self) -> MemoryVerdict:
        manifest, signature = self._artifact.manifest_bytes, self._artifact.signature_bytes
        return (await self._client.stage(manifest, signature)).memory

    def _count(self, part_bytes: int) -> None:
        self.sent_bytes += part_bytes
        self._done_bytes += part_bytes
        now = time.monotonic()
        if now - self._told_at < TELL_SECONDS and self._done_bytes < self._total_bytes:
            return
        self._told_at, rate = now, self._rate.now(self.sent_bytes, now)
        self._listener.sent(Sent(min(self._done_bytes, self._total_bytes), self._total_bytes, rate))


class _Rate:
    """Bytes per second over the last few seconds, so that a stall shows and is soon forgotten."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def now(self, total_bytes: int, seconds: float) -> float:
        if seconds - self._seen[-1][0] >= RATE_SECONDS / 50:
            self._seen.append((seconds, total_bytes))
        while len(self._seen) > 2 and seconds - self._seen[1][0] > RATE_SECONDS:
            self._seen.popleft()
        began, before_bytes = self._seen[0]
        return (total_bytes - before_bytes) / max(seconds - began, 1e-9)
