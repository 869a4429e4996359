"""The least a Python process can do for a token: `python benchmarks/bare_relay.py FEED`.

Reads a line per token from the Unix socket FEED and passes it on, as a message of gRPC's asyncio server or as it is
over TCP. No admission, no measuring, no parsing: what the agent spends beyond this is its own. Prints the two ports.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from edgewright.v1 import inference_pb2, inference_pb2_grpc


class BareService(inference_pb2_grpc.InferenceServiceServicer):
    """One message per line of the feed."""

    def __init__(self, feed: str) -> None:
        self._feed = feed

    async def Generate(  # noqa: N802
        self, request: inference_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """As many as the feed has."""
        reader, writer = await asyncio.open_unix_connection(self._feed)
        writer.write(b"%d\n" % request.max_tokens)
        while await reader.readline():
            yield inference_pb2.GenerateResponse(delta=inference_pb2.TextDelta(text=" board", token=7))
        writer.close()


async def serve(feed: str) -> None:
    """Both servers, until the process is ended."""
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(BareService(feed), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source, asking = await asyncio.open_unix_connection(feed)
        asking.write(await reader.readline())
        while line := await source.readline():
            writer.write(line)
            await writer.drain()
        asking.close()
        writer.close()

    tcp = await asyncio.start_server(forward, "127.0.0.1", 0)
    print(port, tcp.sockets[0].getsockname()[1], flush=True)
    await tcp.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
