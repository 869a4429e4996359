"""A TCP proxy between host and agent that does to the bytes what links do: delay, throttle, cut, fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from edgewright.address import Address

PIECE_BYTES = 16 * 1024


@dataclass
class Link:
    """How the link behaves. May be changed while it is up."""

    delay_seconds: float = 0.0  # each way
    bytes_per_second: float | None = None  # towards the board
    ends_after_bytes: int | None = None  # of each connection, towards the board
    ends_politely: bool = False  # with a FIN in the middle of a message, not with a reset
    silent: bool = False  # connections stand and nothing gets through
    silent_after_bytes: int | None = None  # of `forwarded_bytes`; once
    forwarded_bytes: int = 0  # towards the board, over all connections
    connections: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _lost: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Resets every connection there is."""
        for writer in list(self._open):
            reset(writer)

    def fall_silent_if_due(self) -> None:
        """Before another byte gets through, however late whoever set it looks."""
        if self.silent_after_bytes is not None and self.forwarded_bytes >= self.silent_after_bytes:
            self.silent, self.silent_after_bytes = True, None

    def forget(self) -> None:
        """What stands falls silent for ever, as behind a NAT that lost its table; new connections are fine."""
        self._lost |= self._open


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a RST, without sending what is buffered."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def bad_link(board: Address, link: Link) -> AsyncIterator[Address]:
    """The address at which the board is behind `link`."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await _connect(board, link, reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        link.cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(
    board: Address, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    link.connections += 1
    board_reader, board_writer = await asyncio.open_connection(board.host, board.port)
    both = {writer, board_writer}
    link._open |= both
    ways = [
        asyncio.create_task(_Way(link, reader, board_writer, towards_board=True).run()),
        asyncio.create_task(_Way(link, board_reader, writer, towards_board=False).run()),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        link._open -= both
        for end in both:
            end.close() if link.ends_politely else reset(end)


class _Way:
    """One direction of one connection."""

    def __init__(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, towards_board: bool
    ) -> None:
        self._link = link
        self._reader = reader
        self._writer = writer
        self._towards_board = towards_board
        self._left_bytes = link.ends_after_bytes if towards_board else None
        self._on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=4096)

    async def run(self) -> None:
        """Until the connection ends."""
        leaving, arriving = asyncio.create_task(self._leave()), asyncio.create_task(self._arrive())
        try:
            await arriving
        finally:
            for task in (leaving, arriving):
                task.cancel()
            await asyncio.gather(leaving, arriving, return_exceptions=True)

    async def _leave(self) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while data := await self._reader.read(PIECE_BYTES):
                await self._on_the_way.put((clock() + self._link.delay_seconds, data))
        await self._on_the_way.put((0.0, b""))

    async def _arrive(self) -> None:
        while True:
            due, data = await self._on_the_way.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            while self._link.silent or self._writer in self._link._lost:
                await asyncio.sleep(0.01)
            if self._towards_board and self._link.bytes_per_second is not None:
                await asyncio.sleep(len(data) / self._link.bytes_per_second)
            if not data or not await self._forward(data):
                return

    async def _forward(self, data: bytes) -> bool:
        """Whether the connection lives on."""
        if self._left_bytes is not None:
            data, self._left_bytes = data[: self._left_bytes], self._left_bytes - len(data)
        self._writer.write(data)
        await self._writer.drain()
        if self._towards_board:
            self._link.forwarded_bytes += len(data)
            self._link.fall_silent_if_due()
        return self._left_bytes is None or self._left_bytes > 0
