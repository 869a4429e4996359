"""The least a Python process can do for a token: `python benchmarks/bare_relay.py FEED`.

Reads a line per token from the Unix socket FEED and passes it on, as a message of gRPC's asyncio server or as it is
over TCP. No admission, no measuring, no parsing: what the agent spends beyond this is its own. Prints the two ports.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from edgewright.v1.inference_pb2 import GenerateRequest, GenerateResponse, TextDelta

SERVICE = "edgewright.v1.InferenceService"


async def serve(feed: str) -> None:
    """Both servers, until the process is ended."""

    async def generate(request: GenerateRequest, _: object) -> AsyncIterator[GenerateResponse]:
        reader, writer = await asyncio.open_unix_connection(feed)
        writer.write(b"%d\n" % request.max_tokens)
        while await reader.readline():
            yield GenerateResponse(deltas=[TextDelta(text=" board", token=7)])
        writer.close()

    handler = grpc.unary_stream_rpc_method_handler(
        generate, GenerateRequest.FromString, GenerateResponse.SerializeToString
    )
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler(SERVICE, {"Generate": handler})
    server.add_generic_rpc_handlers((service,))
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
