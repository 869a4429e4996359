"""One WriteBlob call: says what is coming, waits until the board wants it, then feeds it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc
import grpc.aio

from edgewright.v1.deployment_pb2 import Blob, WriteBlobRequest, WriteBlobResponse
from edgewright_builder.device_client.blob_parts import PartMessage, Resumption

METHOD = "/edgewright.v1.DeploymentService/WriteBlob"
ACCEPTED_KEY = "edgewright-accepted"  # initial metadata of the agent: "", or "CHUNK OFFSET" to go on from

MakeParts = Callable[[Resumption | None], AsyncGenerator[PartMessage, None]]


async def send_stream(channel: grpc.aio.Channel, blob: Blob, parts: MakeParts) -> int:
    """Returns the bytes the board took; 0 if it has the blob. Raises grpc.aio.AioRpcError."""
    method: grpc.aio.StreamUnaryMultiCallable[bytes, WriteBlobResponse] = channel.stream_unary(
        METHOD, response_deserializer=WriteBlobResponse.FromString
    )
    call: Any = method()
    try:
        await _feed(call, blob, parts)
        response: WriteBlobResponse = await call
        return response.received_bytes
    finally:
        call.cancel()  # nothing if it has ended


async def _feed(call: Any, blob: Blob, parts: MakeParts) -> None:
    # If the call ends meanwhile, awaiting it tells how.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(WriteBlobRequest(blob=blob).SerializeToString())
        metadata = dict(await call.initial_metadata())
        if ACCEPTED_KEY in metadata:
            await _write_all(call, parts(_resumption(metadata[ACCEPTED_KEY])))
        await call.done_writing()


async def _write_all(call: Any, parts: AsyncGenerator[PartMessage, None]) -> None:
    try:
        async for part in parts:
            await call.write(part.message)
    finally:
        await parts.aclose()


def _resumption(value: str) -> Resumption | None:
    numbers = value.split()
    if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    return Resumption(int(numbers[0]), int(numbers[1]))
