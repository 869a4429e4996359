"""A raw HTTP client of a board's OpenAI API, for requests that no library would send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from edgewright_agent.engines import Reply
from tests.support.openai_servers import Board

PATIENCE_SECONDS = 0.4  # what tests set the server's deadlines to
LARGE_BYTES = 3 * 2**20  # more than the buffers of a socket hold
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Client:
    """A raw connection. What came is kept although the other side has closed and writing fails."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = b""

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def read_until(self, mark: bytes) -> bytes:
        """What came up to and with the mark."""
        while mark not in self._received:
            assert await self._read_more(), f"closed after {self._received!r}"
        found, self._received = self._received.split(mark, 1)
        return found + mark

    async def read_rest(self) -> bytes:
        """What comes until the other side closes."""
        while await self._read_more():
            pass
        rest, self._received = self._received, b""
        return rest

    async def read_answer(self) -> Answer:
        """One answer."""
        status, *lines = (await self.read_until(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        if "content-length" not in headers:
            return Answer(int(status.split()[1]), headers, await self.read_until(b"\r\n0\r\n\r\n"))
        size = int(headers["content-length"])
        while len(self._received) < size:
            assert await self._read_more(), f"closed after {self._received!r}"
        body, self._received = self._received[:size], self._received[size:]
        return Answer(int(status.split()[1]), headers, body)

    async def read_slowly(self, size: int, pause_seconds: float) -> int:
        """Some bytes now and then until `size` came or the other side closed; returns how many came."""
        while len(self._received) < size and await self._read_more():
            await asyncio.sleep(pause_seconds)
        return len(self._received)

    async def sip(self, pause_seconds: float) -> None:
        """Reads a byte now and then."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(self._socket, 1):
                await asyncio.sleep(pause_seconds)

    async def _read_more(self) -> bool:
        try:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 65536), 20)
        except ConnectionError:
            return False
        self._received += data
        return bool(data)


@contextlib.asynccontextmanager
async def connection(running: Board) -> AsyncIterator[Client]:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, running.url.removeprefix("unix:"))
        yield Client(connected)


async def talk(running: Board, data: bytes) -> Answer:
    async with connection(running) as client:
        await client.write(data)
        return await client.read_answer()


async def flood(client: Client, data: bytes) -> tuple[Answer, int]:
    """The answer to the same bytes over and over again, and how many were sent until it came."""
    answering, sent = asyncio.create_task(client.read_answer()), 0
    with contextlib.suppress(ConnectionError):
        while not answering.done():
            await client.write(data)
            await asyncio.sleep(0)
            sent += len(data)
    return await answering, sent


async def trickle(client: Client, data: bytes) -> None:
    """A byte now and then, for as long as there is somebody."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            await client.write(bytes([byte]))
            await asyncio.sleep(PATIENCE_SECONDS / 20)


def head(*lines: str, route: str = "/v1/completions") -> bytes:
    return "\r\n".join([f"POST {route} HTTP/1.1", "host: localhost", *lines, "", ""]).encode()


def post(body: Any) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(f"content-length: {len(content)}") + content


@contextlib.asynccontextmanager
async def large_answer(method: str, route: str, body: bytes = b"", client: str = "") -> AsyncIterator[Reply]:
    """More than a socket's buffers hold."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b" " * LARGE_BYTES

    yield Reply(200, {"content-type": "application/json"}, pieces())
