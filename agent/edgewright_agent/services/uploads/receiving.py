"""Receives one WriteBlob: puts its parts together, and writes a chunk while the next one arrives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

from edgewright.chunk_delta import Delta
from edgewright.errors import BusyError, EdgewrightError, InputError, OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.runtime.threads import run_in_thread
from edgewright_agent.services.translation.messages import blob_from, delta_from
from edgewright_agent.services.uploads.assembly import CHUNKS_IN_HAND, ChunkAssembler, Unfinished
from edgewright_agent.services.uploads.parts import ReceivedPart, WriteRequest, part_of
from edgewright_agent.services.uploads.request_reader import RequestReader
from edgewright_agent.store import Blob, Store, Upload, apply_delta

STALL_SECONDS = 30.0
CHUNK_SECONDS = 600.0  # a link slower than 7 KB/s is of no use to a board
UPLOADS_MAX = 8  # at once: each holds three chunks in memory
UNFINISHED_KEPT = 2  # beginnings of chunks whose stream broke
REFUSALS_KEPT = 64
ACCEPTED_KEY = "edgewright-accepted"  # initial metadata: parts are welcome, from there on

Requests = AsyncIterator[WriteRequest]
WriteReader = RequestReader[WriteRequest]
Accepted = Callable[[str], Awaitable[None]]  # is told "", or "CHUNK OFFSET" to go on from
Value = TypeVar("Value")


async def _nobody_waits(go_on: str) -> None:
    pass


class BlobReceiver:
    """Receives blobs, a few at once, and remembers why it refused one. Belongs to one event loop."""

    def __init__(self, store: Store, *, stall_seconds: float = STALL_SECONDS) -> None:
        self._store = store
        self._stall_seconds = stall_seconds
        self._under_way = 0
        self._refusals: dict[str, EdgewrightError] = {}  # by blob, as below
        self._unfinished: dict[str, Unfinished] = {}

    async def receive(self, requests: Requests, accepted: Accepted = _nobody_waits) -> int:
        """Writes one blob from its stream; returns the bytes received, 0 if it was present.

        Calls `accepted` once parts are welcome. What arrived whole stays when the stream breaks, and so does
        the beginning of a chunk while this process lives: a link that breaks every few MB gets on all the same.
        Raises as `Store.begin_upload`, `Upload.write_chunk`, `Upload.publish`; InputError for parts out of
        order; OutsideError if the stream stalls; BusyError.
        """
        async with RequestReader(requests, self._stall_seconds) as reader:
            blob: Blob | None = None
            try:
                blob = await _first(reader)
                self._refusals.pop(blob.sha256, None)
                with self._one_of_few():
                    return await self._receive(blob, reader, accepted)
            except EdgewrightError as error:
                if blob is not None and error.reason != Reason.REASON_UNSPECIFIED:  # a stall is no refusal
                    _keep(self._refusals, blob.sha256, error, REFUSALS_KEPT)
                await reader.drain()
                raise

    def last_refusal(self, sha256: str) -> EdgewrightError | None:
        """Returns why the last stream of this blob was refused; None if it was not."""
        return self._refusals.get(sha256)

    @contextlib.contextmanager
    def _one_of_few(self) -> Iterator[None]:
        if self._under_way == UPLOADS_MAX:
            raise BusyError(f"{UPLOADS_MAX} uploads are under way here. Try again later.")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _receive(self, blob: Blob, reader: WriteReader, accepted: Accepted) -> int:
        begun: list[Upload] = []  # filled in the thread, so that a call cancelled meanwhile lets go of it too
        complete = False
        try:
            await run_in_thread(_begin, self._store, blob, begun)
            if not begun:
                return 0
            assembler = ChunkAssembler(blob, self._unfinished.pop(blob.sha256, None))
            await accepted(assembler.go_on)
            try:
                await _receive_chunks(self._store, begun[0], reader, assembler)
            finally:
                _keep(self._unfinished, blob.sha256, assembler.unfinished(), UNFINISHED_KEPT)
            complete = True
            return assembler.received_bytes
        finally:
            for upload in begun:
                await run_in_thread(self._store.end_upload, upload, complete=complete)


def _keep(kept: dict[str, Value], sha256: str, value: Value | None, most: int) -> None:
    """Keeps the newest `most` entries."""
    if value is not None:
        kept[sha256] = value
    while len(kept) > most:
        kept.pop(next(iter(kept)))


async def _first(reader: WriteReader) -> Blob:
    first = await reader.next()
    if first is None or isinstance(first, ReceivedPart) or first.WhichOneof("content") != "blob":
        raise InputError("The first message of WriteBlob must name the blob.")
    return blob_from(first.blob)


def _begin(store: Store, blob: Blob, begun: list[Upload]) -> None:
    upload = store.begin_upload(blob)
    if upload is not None:
        begun.append(upload)


async def _receive_chunks(
    store: Store, upload: Upload, reader: WriteReader, assembler: ChunkAssembler
) -> None:
    writer = _Writer(store, upload)
    began = time.monotonic()
    try:
        while (request := await reader.next()) is not None:
            if not isinstance(request, ReceivedPart) and request.WhichOneof("content") == "delta":
                assembler.announce(delta_from(request.delta, upload.blob))
                continue
            if assembler.add(part_of(request)):
                await writer.put(*assembler.take())
                began = time.monotonic()
            elif time.monotonic() - began > CHUNK_SECONDS:
                raise OutsideError(
                    f"No whole chunk came for {CHUNK_SECONDS:g} s: the link is too slow. What is durable stays; go on "
                    "when it is faster."
                )
        assembler.end()
        await writer.finish()
    finally:
        await writer.let_go()


class _Writer:
    """Verifies and writes chunks in threads while the next arrives, and syncs beside both."""

    def __init__(self, store: Store, upload: Upload) -> None:
        self._store = store
        self._upload = upload
        self._writing: deque[asyncio.Task[None]] = deque()  # oldest first
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, chunk: int, data: memoryview, delta: Delta | None) -> None:
        """Takes a chunk once few enough are being written. `data` may be used again `CHUNKS_IN_HAND` chunks later."""
        while len(self._writing) >= (1 if self._upload.wants_order else CHUNKS_IN_HAND):
            await self._oldest()
        if self._flushing is not None and self._flushing.done():
            self._flushing.result()
            self._flushing = None
        if self._flushing is None and self._upload.flush_is_due:
            self._flushing = asyncio.create_task(run_in_thread(self._upload.flush))
        self._writing.append(asyncio.create_task(run_in_thread(self._write, chunk, data, delta)))

    async def finish(self) -> None:
        """Waits until all is written; raises what went wrong."""
        while self._writing:
            await self._oldest()
        if self._flushing is not None:
            await self._flushing

    async def let_go(self) -> None:
        """Waits until no thread works on the upload any more, whatever has happened."""
        tasks = [task for task in (*self._writing, self._flushing) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _oldest(self) -> None:
        await self._writing[0]
        self._writing.popleft()

    def _write(self, chunk: int, data: memoryview, delta: Delta | None) -> None:
        if delta is None:
            self._upload.write_chunk(chunk, data)
        else:
            size_bytes = self._upload.blob.chunks[chunk][1]
            made = apply_delta(self._store.layout, delta, bytes(data), size_bytes)
            self._upload.write_chunk(chunk, made)
        self._store.traffic.came("full" if delta is None else "delta", len(data))
