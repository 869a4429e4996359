"""httpx over an engine's `relay`, as the agent's OpenAI-compatible server uses it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx

from edgewright_agent.engines import Engine, Reply


class RelayTransport(httpx.AsyncBaseTransport):
    """Sends requests through one engine's `relay`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Returns the engine's answer, whose body is still arriving."""
        stack = contextlib.AsyncExitStack()
        relaying = self._engine.relay(request.method, request.url.path, await request.aread())
        reply = await stack.enter_async_context(relaying)
        return httpx.Response(reply.status, headers=dict(reply.headers), stream=_Body(reply, stack))


class _Body(httpx.AsyncByteStream):
    def __init__(self, reply: Reply, stack: contextlib.AsyncExitStack) -> None:
        self._reply, self._stack = reply, stack

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._reply.pieces:
            yield piece

    async def aclose(self) -> None:
        await self._reply.pieces.aclose()
        await self._stack.aclose()
