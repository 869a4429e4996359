"""The parts of one WriteBlob, put together chunk by chunk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from edgewright.v1 import deployment_pb2
from edgewright_agent.errors import InputError, OutsideError
from edgewright_agent.services.messages import blob_from
from edgewright_agent.store import Blob, Store, Upload
from edgewright_agent.threads import run_in_thread

PART_BYTES_MAX = 1024 * 1024
STALL_SECONDS = 30.0


async def receive_blob(
    store: Store,
    requests: AsyncIterator[deployment_pb2.WriteBlobRequest],
    stall_seconds: float = STALL_SECONDS,
) -> int:
    """Writes one blob from its stream; returns the bytes received, 0 if it was present.

    What arrived whole stays when the stream breaks. Raises as `Store.begin_upload`, `Upload.write_chunk`,
    `Upload.publish`; InputError for parts out of order; OutsideError if nothing comes for `stall_seconds`.
    """
    first = await _next(requests, stall_seconds)
    if first is None or first.WhichOneof("content") != "blob":
        raise InputError("The first message of WriteBlob must name the blob.")
    blob = blob_from(first.blob)
    begun: list[Upload] = []  # filled in the thread, so that a call cancelled meanwhile lets go of it too
    complete = False
    try:
        await run_in_thread(_begin, store, blob, begun)
        if not begun:
            return 0
        received_bytes = await _receive_chunks(begun[0], requests, stall_seconds)
        complete = True
        return received_bytes
    finally:
        for upload in begun:
            await run_in_thread(store.end_upload, upload, complete=complete)


def _begin(store: Store, blob: Blob, begun: list[Upload]) -> None:
    upload = store.begin_upload(blob)
    if upload is not None:
        begun.append(upload)


async def _receive_chunks(
    upload: Upload, requests: AsyncIterator[deployment_pb2.WriteBlobRequest], stall_seconds: float
) -> int:
    received_bytes = 0
    chunk, buffer = -1, bytearray()
    while (request := await _next(requests, stall_seconds)) is not None:
        part = request.part
        if not buffer:
            chunk = part.chunk
        _check_part(upload, request, chunk, len(buffer))
        buffer += part.data
        received_bytes += len(part.data)
        if len(buffer) == upload.blob.chunks[chunk][1]:
            await run_in_thread(upload.write_chunk, chunk, bytes(buffer))
            buffer.clear()
    if buffer:
        raise InputError(f"The stream ended inside chunk {chunk}, after {len(buffer)} of its bytes.")
    return received_bytes


def _check_part(
    upload: Upload, request: deployment_pb2.WriteBlobRequest, chunk: int, offset_bytes: int
) -> None:
    part, chunks = request.part, upload.blob.chunks
    if request.WhichOneof("content") != "part" or not 0 < len(part.data) <= PART_BYTES_MAX:
        raise InputError(f"After the blob come parts of 1 to {PART_BYTES_MAX} bytes; {len(part.data)} came.")
    if part.chunk >= len(chunks):
        raise InputError(f"Chunk {part.chunk} came; the blob has {len(chunks)} chunks.")
    if part.chunk != chunk or part.offset_bytes != offset_bytes:
        raise InputError(
            f"Chunk {part.chunk} at {part.offset_bytes} came; chunk {chunk} at {offset_bytes} is expected."
        )
    if offset_bytes + len(part.data) > chunks[chunk][1]:
        raise InputError(f"Chunk {chunk} has {chunks[chunk][1]} bytes; more came.")


async def _next(
    requests: AsyncIterator[deployment_pb2.WriteBlobRequest], stall_seconds: float
) -> deployment_pb2.WriteBlobRequest | None:
    try:
        return await asyncio.wait_for(anext(requests), stall_seconds)
    except StopAsyncIteration:
        return None
    except asyncio.TimeoutError:
        message = (
            f"Nothing came for {stall_seconds:g} s; what is durable stays. Ask FindMissingBlobs and go on."
        )
        raise OutsideError(message) from None
