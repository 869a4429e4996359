#!/usr/bin/env bash
# grpcio 1.85.3: where a response can't be decoded, a call of grpc.aio ends well and returns None; the same call of the
# synchronous API raises RpcError, INTERNAL, "Exception deserializing response!".
#
# A deserializer that raises, as protobuf's does for a message of another kind, is logged only (logger grpc._common).
# So a client of grpc.aio meets None where it expects a message, in unary calls and in streams.
# Seen on CPython 3.11, Linux x86-64. Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
GRPC_VERBOSITY=NONE "$folder/venv/bin/python" - <<'PY'
import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio

logging.getLogger("grpc._common").addHandler(logging.NullHandler())  # else the traceback is printed as well


class Text(grpc.GenericRpcHandler):
    """Answers one call with a text, and another with a stream of it."""

    def service(self, details):
        if details.method.endswith("Stream"):
            return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([b"text", b"text"]))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"text")


def number(data):
    """Reads a number, and raises ValueError for a text."""
    return int(data)


server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Text(),))
address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()


async def with_asyncio():
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/service/One", response_deserializer=number)(b"")
        stream = channel.unary_stream("/service/Stream", response_deserializer=number)(b"")
        return await call, [each async for each in stream], await call.code()


one, many, code = asyncio.run(with_asyncio())
with grpc.insecure_channel(address) as channel:
    try:
        synchronous = channel.unary_unary("/service/One", response_deserializer=number)(b"")
    except grpc.RpcError as error:
        synchronous = (error.code(), error.details())
server.stop(None).wait()
print(f"grpc.aio: {one} and {many}, status {code}; synchronous: {synchronous}")
assert synchronous == (grpc.StatusCode.INTERNAL, "Exception deserializing response!"), synchronous
assert (one, many, code) == (None, [None, None], grpc.StatusCode.OK), "grpc.aio tells of it now"
PY
