"""Brings the missing blobs of a manifest from its mirrors into the store, by the way uploads take.

Each chunk is verified as it completes and durable window by window, so an interrupted fetch goes on where
it stopped, from this mirror, another one, or the host. Memory: one chunk, at most 4 MiB, whatever the size.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import httpx

from edgewright.errors import BusyError, EdgewrightError
from edgewright.manifest import Manifest, Mirror
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.mirror.http import (
    BlobRange,
    BrokenOffError,
    MirrorError,
    MirrorLimits,
    get_range,
    open_client,
)
from edgewright_agent.runtime.threads import run_in_thread
from edgewright_agent.store import Blob, Store, Upload
from edgewright_agent.store.blobs.blob import from_ranges, to_ranges

PROGRESS_SECONDS = 0.25
NEXT = "The next mirror is asked; what none of them has, the host sends."


@dataclass(frozen=True)
class FetchProgress:
    """How far a fetch has come."""

    fetched_bytes: int  # by this fetch
    missing_bytes: int  # still
    note: str = ""


async def fetch_missing(
    store: Store, manifest: Manifest, limits: MirrorLimits = MirrorLimits()
) -> AsyncGenerator[FetchProgress, None]:
    """Fetches what it can; yields how far it has come. The last item is final.

    A mirror that lacks a blob, or serves it badly, is no error: the next one is tried, and what none has stays
    missing. Raises OutsideError (`DISK_SPACE`).
    """
    queue: asyncio.Queue[FetchProgress | None] = asyncio.Queue()
    task = asyncio.create_task(_Fetch(store, manifest, limits, queue.put).run())
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (progress := await queue.get()) is not None:
            yield progress
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


class _Fetch:
    """One run over a manifest's blobs."""

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        limits: MirrorLimits,
        tell: Callable[[FetchProgress], Awaitable[None]],
    ) -> None:
        self._store = store
        self._mirrors = manifest.mirrors
        self._blobs = list({file.sha256: Blob.of_file(file) for file in manifest.files}.values())
        self._limits = limits
        self._tell = tell
        self._fetched_bytes = 0
        self._missing_bytes = 0
        self._told_at = float("-inf")

    async def run(self) -> None:
        missing = await run_in_thread(self._store.missing, self._blobs)
        self._missing_bytes = sum(each.missing_bytes for each in missing)
        wanted = {each.sha256 for each in missing}
        async with open_client(self._limits) as client:
            for blob in self._blobs:
                if blob.sha256 in wanted:
                    await self._fetch_from_any(client, blob)
        left = await run_in_thread(self._store.missing, self._blobs)
        await self._tell(FetchProgress(self._fetched_bytes, sum(each.missing_bytes for each in left)))

    async def _fetch_from_any(self, client: httpx.AsyncClient, blob: Blob) -> None:
        for mirror in self._mirrors:
            try:
                await self._fetch_blob(client, mirror, blob)
                return
            except (MirrorError, BusyError) as error:
                await self._tell(FetchProgress(self._fetched_bytes, self._missing_bytes, f"{error} {NEXT}"))

    async def _fetch_blob(self, client: httpx.AsyncClient, mirror: Mirror, blob: Blob) -> None:
        begun: list[Upload] = []  # filled in the thread, so that a cancelled fetch lets go of it too
        complete = False
        try:
            await run_in_thread(_begin, self._store, blob, begun)
            if begun:
                await self._fill(client, mirror, begun[0])
            complete = True
        finally:
            for upload in begun:
                await run_in_thread(self._store.end_upload, upload, complete=complete)

    async def _fill(self, client: httpx.AsyncClient, mirror: Mirror, upload: Upload) -> None:
        """Goes on after each break, as long as something new arrives in between."""
        fruitless = 0
        while absent := _absent(upload):
            try:
                await self._one_request(client, mirror, upload, absent)
            except BrokenOffError:
                fruitless = 0 if len(_absent(upload)) < len(absent) else fruitless + 1
                if fruitless >= self._limits.attempts_max:
                    raise
                await asyncio.sleep(min(0.2 * 2**fruitless, 2.0) if fruitless else 0)

    async def _one_request(
        self, client: httpx.AsyncClient, mirror: Mirror, upload: Upload, absent: set[int]
    ) -> None:
        blob, span = upload.blob, to_ranges(absent)[0]
        first = blob.offsets[span.first]
        end = first + blob.bytes_of(from_ranges([span]))
        url = mirror.blob_url(blob.sha256)
        async with get_range(client, url, first, end, blob.size_bytes, self._limits) as stretch:
            whole = stretch.first != first  # the server knows no ranges: all chunks will come by
            chunks = range(len(blob.chunks)) if whole else range(span.first, span.first + span.count)
            await self._take(upload, url, stretch, chunks, absent)

    async def _take(
        self, upload: Upload, url: str, stretch: BlobRange, chunks: range, absent: set[int]
    ) -> None:
        """Writes the chunks that arrive and are absent. Reads not a byte beyond the last."""
        indices, buffer = iter(chunks), bytearray()
        index = next(indices)
        async for piece in stretch.pieces:
            view = memoryview(piece)
            while view:
                size_bytes = upload.blob.chunks[index][1]
                taken = min(size_bytes - len(buffer), len(view))
                buffer += view[:taken]
                view = view[taken:]
                if len(buffer) < size_bytes:
                    continue
                if index in absent:
                    await self._write(upload, url, index, bytes(buffer))
                buffer.clear()
                following = next(indices, None)
                if following is None:
                    return
                index = following
        raise BrokenOffError(f"{url} ended inside chunk {index}.")

    async def _write(self, upload: Upload, url: str, index: int, data: bytes) -> None:
        try:
            await run_in_thread(upload.write_chunk, index, data)
        except EdgewrightError as error:
            if error.reason != Reason.REASON_DIGEST_MISMATCH:
                raise
            raise MirrorError(f"{url} is not what was signed: {error}", error.reason) from None
        self._store.traffic.came("mirror", len(data))
        self._fetched_bytes += len(data)
        self._missing_bytes = max(0, self._missing_bytes - len(data))
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            await self._tell(FetchProgress(self._fetched_bytes, self._missing_bytes))


def _begin(store: Store, blob: Blob, begun: list[Upload]) -> None:
    upload = store.begin_upload(blob)
    if upload is not None:
        begun.append(upload)


def _absent(upload: Upload) -> set[int]:
    return set(range(len(upload.blob.chunks))) - upload.present
