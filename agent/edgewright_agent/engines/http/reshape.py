"""An OpenAI-compatible engine's answers, whole or as a stream, put into another shape on their way."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from edgewright_agent.engines.http.events import content, events, stamped
from edgewright_agent.engines.protocol.requests import Reply

# Of an answer or a chunk of one, and where in the text it begins: its new shape, and where the next one begins.
Reshape = Callable[[dict[str, Any], int], tuple[dict[str, Any], int]]


def reshaped(reply: Reply, reshape: Reshape) -> Reply:
    """Returns the reply with every answer and every chunk in its new shape."""
    headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
    streams = headers.get("content-type", "").startswith("text/event-stream")
    return Reply(reply.status, headers, _stream(reply, reshape) if streams else _whole(reply, reshape))


async def _whole(reply: Reply, reshape: Reshape) -> AsyncGenerator[bytes, None]:
    yield json.dumps(reshape(json.loads(await reply.read()), 0)[0]).encode()


async def _stream(reply: Reply, reshape: Reshape) -> AsyncGenerator[bytes, None]:
    offset = 0
    async with aclosing(events(reply.pieces)) as arrivals:
        async for together in arrivals:
            outgoing = []
            for event in together:
                chunk, raw = content(event), event.raw
                if chunk is not None:
                    chunk, offset = reshape(chunk, offset)
                    raw = b"data: " + json.dumps(chunk).encode()
                if raw.strip():
                    outgoing.append(stamped(raw, event.at_seconds) + b"\n\n")
            if outgoing:
                yield b"".join(outgoing)
