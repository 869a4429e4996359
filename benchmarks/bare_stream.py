"""The peer of `push.py`: gRPC that streams a file to a process which drops it, or does one thing more with it.

`python bare_stream.py [CREDENTIALS]` is that process.
Same library, same message size, same TLS, a process of its own; no digests, no disk. `message` streams protobuf
messages, as a generated stub does, the others bytes as they are. With `hash` and `write` among the method's words it
also does what a push must, as cheaply as it can be done: SHA-256 of every 4 MiB in a thread, and those 4 MiB past the
page cache to a file that is synced. They show what each costs on the same cores.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from edgewright.address import Address
from edgewright.v1.deployment_pb2 import BlobPart
from edgewright_agent.runtime.tls import TlsFiles, server_credentials
from edgewright_agent.store import ChunkBuffer
from edgewright_builder.device_client.channel import open_channel

SERVICE = "benchmark.Sink"
MODES = ("message", "drop", "hash", "write", "hash-write")
CHUNK_BYTES = 4 * 1024 * 1024
IN_HAND = 2  # chunks in threads, as the agent has them

Context = grpc.aio.ServicerContext[bytes, bytes]


async def drop_messages(requests: AsyncIterator[BlobPart], context: Context) -> bytes:
    """Counts the bytes that messages carry."""
    return str(sum([len(part.data) async for part in requests])).encode()


async def drop(requests: AsyncIterator[bytes], context: Context) -> bytes:
    """Counts bytes."""
    return str(sum([len(data) async for data in requests])).encode()


def working(mode: str, folder: Path) -> Callable[[AsyncIterator[bytes], Context], object]:
    """A handler that hashes or writes, or both."""

    async def take(requests: AsyncIterator[bytes], context: Context) -> bytes:
        path = folder / f"{mode}.bin"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
        try:
            total_bytes = await _work(mode, file, requests)
            os.fdatasync(file)
        finally:
            os.close(file)
            path.unlink()
        return str(total_bytes).encode()

    return take


async def _work(mode: str, file: int, requests: AsyncIterator[bytes]) -> int:
    buffers = [ChunkBuffer(CHUNK_BYTES).at(0, CHUNK_BYTES) for _ in range(IN_HAND + 1)]
    tasks: list[asyncio.Task[None]] = []
    total_bytes = filled_bytes = 0
    async for data in requests:
        buffers[0][filled_bytes : filled_bytes + len(data)] = data
        filled_bytes += len(data)
        if filled_bytes == CHUNK_BYTES:
            while len(tasks) >= IN_HAND:
                await tasks.pop(0)
            tasks.append(asyncio.create_task(asyncio.to_thread(_chunk, mode, file, buffers[0], total_bytes)))
            buffers.append(buffers.pop(0))
            total_bytes, filled_bytes = total_bytes + CHUNK_BYTES, 0
    await asyncio.gather(*tasks)
    return total_bytes + filled_bytes


def _chunk(mode: str, file: int, data: memoryview, offset: int) -> None:
    if "hash" in mode:
        hashlib.sha256(data).digest()
    if "write" in mode:
        os.pwrite(file, data, offset)


async def serve_sink(credentials: Path | None, folder: Path) -> None:
    """Prints its address and serves until it is killed."""
    handlers: dict[str, Any] = {"drop": drop, **{mode: working(mode, folder) for mode in MODES[2:]}}
    methods: dict[str, Any] = {
        mode: grpc.stream_unary_rpc_method_handler(take) for mode, take in handlers.items()
    }
    methods["message"] = grpc.stream_unary_rpc_method_handler(drop_messages, BlobPart.FromString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    if credentials is None:
        port = server.add_insecure_port("localhost:0")
    else:
        port = server.add_secure_port("localhost:0", server_credentials(tls_files(credentials)))
    await server.start()
    print(f"serving on localhost:{port}", flush=True)
    await server.wait_for_termination()


def tls_files(credentials: Path) -> TlsFiles:
    """The agent's files in a credentials folder."""
    return TlsFiles(credentials / "agent.pem", credentials / "agent.key", credentials / "ca.pem")


async def time_stream(
    address: Address, credentials: Path | None, path: Path, part_bytes: int, mode: str = "drop"
) -> float:
    """Seconds to stream a file to the sink, over a connection that stands."""

    async def parts() -> AsyncIterator[bytes | BlobPart]:
        with path.open("rb", buffering=0) as source:
            while data := source.read(part_bytes):
                yield BlobPart(data=data) if mode == "message" else data

    async with open_channel(address, credentials) as channel:
        serializer = BlobPart.SerializeToString if mode == "message" else None
        method: Any = channel.stream_unary(f"/{SERVICE}/{mode}", request_serializer=serializer)
        await channel.channel_ready()
        begin = time.perf_counter()
        assert int(await method(parts())) == path.stat().st_size
        return time.perf_counter() - begin


def main() -> None:
    """The sink, over the disk that `TMPDIR` names."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve_sink(Path(sys.argv[1]) if len(sys.argv) > 1 else None, Path(folder)))


if __name__ == "__main__":
    main()
