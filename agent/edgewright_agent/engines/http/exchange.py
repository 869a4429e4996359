"""One HTTP request to an engine on this machine: parsed in C (httptools), the body handed on as it comes.

A connection serves one request. Closing it is how a request is cancelled, and connecting to a local socket costs less
than a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httptools

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.protocol.requests import Reply
from edgewright_agent.runtime.threads import within

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 5.0
CLIENT_HEADER = (
    "edgewright-client"  # our worker shares its time among those whom it names (`batching/fair_shares.py`)
)
BUFFERED_BYTES_MAX = 32 * 1024  # of a body that its reader has not taken yet
# What comes faster is read together: a wake-up for every token takes the processor from the engine's threads.
READ_EVERY_SECONDS = 0.02
QUICK_SECONDS = 1.5 * READ_EVERY_SECONDS  # between arrivals, also where the later one had to wait to be read
STEADY_ARRIVALS = 8  # quick ones in a row: a short answer is never put off


@dataclass(frozen=True)
class LoopbackPort:
    """Where an engine listens that can't listen on a Unix socket. Everybody on the machine may connect to it."""

    port: int
    key: str = field(repr=False)  # without which it answers nothing but its health


Endpoint = Path | LoopbackPort  # a Path is a Unix socket, in a folder that only this user may enter


@asynccontextmanager
async def exchange(
    endpoint: Endpoint, method: str, route: str, body: bytes = b"", client: str = ""
) -> AsyncIterator[Reply]:
    """Gives the reply once its head is here; leaving the block closes the connection.

    `body` is JSON, `client` names who asks. Raises OutsideError (`ENGINE_FAILED`) if the engine can't be reached,
    breaks off, or speaks no HTTP.
    """
    loop = asyncio.get_running_loop()
    if isinstance(endpoint, Path):
        connecting = loop.create_unix_connection(_Exchange, str(endpoint))
    else:
        connecting = loop.create_connection(_Exchange, LOOPBACK, endpoint.port)
    try:
        transport, reading = await within(CONNECT_SECONDS, connecting, undo=lambda pair: pair[0].abort())
    except (OSError, asyncio.TimeoutError) as error:
        raise broken_off(str(error) or "no connection in time") from error
    try:
        transport.write(_request(endpoint, method, route, body, client))
        await reading.head()
        yield Reply(reading.status, reading.headers, reading.pieces())
    finally:
        transport.abort()


def broken_off(how: str) -> OutsideError:
    """Returns the error of a connection that ended too early."""
    return OutsideError(
        f"The engine broke off the connection ({how}); try again.", Reason.REASON_ENGINE_FAILED
    )


def nonsense(what: str) -> OutsideError:
    """Returns the error of an answer that can't be understood."""
    return OutsideError(
        f"The engine answered nonsense: {what}. See the agent's log.", Reason.REASON_ENGINE_FAILED
    )


def _request(endpoint: Endpoint, method: str, route: str, body: bytes, client: str) -> bytes:
    key = "" if isinstance(endpoint, Path) else f"authorization: Bearer {endpoint.key}\r\n"
    head = (
        f"{method} {route} HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n{key}{CLIENT_HEADER}: {client}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Exchange(asyncio.Protocol):
    """Reads one response."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._buffered_bytes = 0
        self._arrived_at_seconds = 0.0
        self._quick_arrivals = 0
        self._arrival: asyncio.Future[None] | None = None  # what the reader waits for
        self._head_is_here = self._complete = False
        self._error: OutsideError | None = None
        self.headers: dict[str, str] = {}

    @property
    def status(self) -> int:
        """The status of the response."""
        return int(self._parser.get_status_code())

    async def head(self) -> None:
        """Returns once the head is here."""
        while not self._head_is_here:
            await self._next_arrival()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives; what came together stays together."""
        while True:
            if self._pieces:
                yield self._take()
            elif self._complete:
                return
            else:
                await self._next_arrival()

    def _take(self) -> bytes:
        taken = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if self._buffered_bytes > BUFFERED_BYTES_MAX:
            self.transport.resume_reading()
        self._buffered_bytes = 0
        return taken

    async def _next_arrival(self) -> None:
        if self._error is not None:
            raise self._error
        self._arrival = asyncio.get_running_loop().create_future()
        await self._arrival

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Overrides asyncio's callback."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Overrides asyncio's callback."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._error = nonsense(str(error))
            self.transport.abort()
        self._rest()
        self._arrived()

    def _rest(self) -> None:
        """Reads nothing for a moment where arrivals are fast; they wait in the socket meanwhile."""
        loop = asyncio.get_running_loop()
        before, self._arrived_at_seconds = self._arrived_at_seconds, loop.time()
        quick = self._arrived_at_seconds - before < QUICK_SECONDS
        self._quick_arrivals = self._quick_arrivals + 1 if quick else 0
        if self._quick_arrivals >= STEADY_ARRIVALS and not self._complete:
            self.transport.pause_reading()
            loop.call_later(READ_EVERY_SECONDS, self._read_on)

    def _read_on(self) -> None:
        if self._buffered_bytes <= BUFFERED_BYTES_MAX:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Overrides asyncio's callback."""
        if not self._complete:
            self._error = self._error or broken_off(str(exc or "before the end of its answer"))
        self._arrived()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Overrides httptools' callback."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Overrides httptools' callback."""
        self._head_is_here = True

    def on_body(self, body: bytes) -> None:
        """Overrides httptools' callback."""
        self._pieces.append(body)
        before, self._buffered_bytes = self._buffered_bytes, self._buffered_bytes + len(body)
        if before <= BUFFERED_BYTES_MAX < self._buffered_bytes:
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """Overrides httptools' callback."""
        self._complete = True
