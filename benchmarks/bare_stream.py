"""The peer of `push.py`: gRPC that streams a file to a process which drops it.

`python bare_stream.py [CREDENTIALS]` is that process.
Same library, same message size, same TLS, a process of its own; no protobuf, no digests, no disk.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio

from edgewright_agent.address import Address
from edgewright_agent.tls import TlsFiles, server_credentials
from edgewright_builder.device.channel import open_channel

METHOD = "/benchmark.Sink/Write"


async def serve_sink(credentials: Path | None) -> None:
    """Counts bytes and drops them. Prints its address and serves until it is killed."""

    async def write(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return str(sum([len(data) async for data in requests])).encode()

    handler = grpc.method_handlers_generic_handler(
        "benchmark.Sink", {"Write": grpc.stream_unary_rpc_method_handler(write)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([handler])
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


async def time_stream(address: Address, credentials: Path | None, path: Path, part_bytes: int) -> float:
    """Seconds to stream a file to the sink, over a connection that stands."""

    async def parts() -> AsyncIterator[bytes]:
        with path.open("rb", buffering=0) as source:
            while data := source.read(part_bytes):
                yield data

    async with open_channel(address, credentials) as channel:
        method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(METHOD)
        await channel.channel_ready()
        begin = time.perf_counter()
        assert int(await method(parts())) == path.stat().st_size
        return time.perf_counter() - begin


if __name__ == "__main__":
    asyncio.run(serve_sink(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
