"""A web server that holds blobs and misbehaves on command, written on bare sockets so that it can."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]

    def span(self, size_bytes: int) -> tuple[int, int] | None:
        """First byte and end of the range asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(match[1]), min(int(match[2]) + 1, size_bytes)) if match else None


@dataclass
class MirrorServer:
    """Blobs by SHA-256 under `/blobs/sha256/<hex>` and `/v2/tiny/blobs/sha256:<hex>`; `answers` come first."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)  # one per request, then `always`, then properly
    always: Answer | None = None
    knows_ranges: bool = True
    requests: list[Request] = field(default_factory=list)
    sent_bytes: int = 0
    address: str = ""
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def add(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return sha256

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serves on loopback; yields `http://127.0.0.1:<port>`."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self.address
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._tasks.append(task)
        try:
            await asyncio.wait([task])
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            request = Request(head[0].split()[1], headers)
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else self.always or self.properly
            await answer(request, writer)
            await writer.drain()

    async def properly(self, request: Request, writer: asyncio.StreamWriter) -> None:
        data = self.blobs.get(request.path[-64:])
        if data is None:
            await say(writer, 404, {}, b"no such blob")
            return
        span = request.span(len(data)) if self.knows_ranges else None
        if span is None:
            await self.send(writer, 200, {}, data)
        else:
            content_range = f"bytes {span[0]}-{span[1] - 1}/{len(data)}"
            await self.send(writer, 206, {"Content-Range": content_range}, data[span[0] : span[1]])

    async def send(
        self, writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        self.sent_bytes += len(body)
        await say(writer, status, headers, body)

    def broken_after(self, count: int) -> Answer:
        """Announces the whole, and ends the connection after `count` bytes of it."""

        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            data = self.blobs[request.path[-64:]]
            first, end = request.span(len(data)) or (0, len(data))
            head = {
                "Content-Range": f"bytes {first}-{end - 1}/{len(data)}",
                "Content-Length": str(end - first),
            }
            self.sent_bytes += count
            await say(writer, 206, head, data[first : first + count])

        return answer

    def altered(self, position: int) -> Answer:
        """The right length, and one wrong bit."""

        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            data = bytearray(self.blobs[request.path[-64:]])
            data[position] ^= 1
            first, end = request.span(len(data)) or (0, len(data))
            content_range = f"bytes {first}-{end - 1}/{len(data)}"
            await say(writer, 206, {"Content-Range": content_range}, bytes(data[first:end]))

        return answer


async def say(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes) -> None:
    """One response; a Content-Length unless the headers have one."""
    headers = {"Content-Length": str(len(body)), **headers, "Connection": "close"}
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items() if value)]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def saying(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """Always this."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await say(writer, status, headers or {}, body)

    return answer


async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
    """A body that never ends: zeros for as long as anybody reads."""
    await say(writer, 200, {"Content-Length": ""}, b"")
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
    """The head, and then nothing."""
    await say(writer, 200, {"Content-Length": ""}, b"")
    await writer.drain()
    await asyncio.sleep(3600)


async def trickling(request: Request, writer: asyncio.StreamWriter) -> None:
    """A byte now and then."""
    await say(writer, 200, {"Content-Length": ""}, b"")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def dripping_head(request: Request, writer: asyncio.StreamWriter) -> None:
    """A header that never ends, a byte now and then."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)
