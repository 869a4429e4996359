"""One request to an engine: what arrives is handed on whole, few times where it comes fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgewright_agent.engines.http.events import contents
from edgewright_agent.engines.http.exchange import BUFFERED_BYTES_MAX, exchange

pytestmark = pytest.mark.asyncio

TOKENS = 200
EVENT = b'data: {"token": %03d}\n\n'


@asynccontextmanager
async def engine(folder: Path, event: bytes, count: int) -> AsyncIterator[Path]:
    """An engine that writes each event in a turn of the loop of its own."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(event % 0) * count
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for number in range(count):
            writer.write(event % number)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    socket = folder / "engine.sock"
    server = await asyncio.start_unix_server(answer, str(socket))
    try:
        yield socket
    finally:
        server.close()


async def test_events_that_come_fast_are_read_together_and_none_is_lost(tmp_path: Path) -> None:
    async with engine(tmp_path, EVENT, TOKENS) as socket, exchange(socket, "POST", "/") as reply:
        pieces = [piece async for piece in reply.pieces]
    assert b"".join(pieces) == b"".join(EVENT % number for number in range(TOKENS))
    assert len(pieces) < TOKENS / 4  # each by itself would wake the agent for every token


async def test_events_that_were_read_together_came_evenly_since_those_before() -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b'data: {"n": 0}\n\n'
        await asyncio.sleep(0.02)
        yield b'data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: {"n": 3}\n\n'

    before = time.monotonic()
    first, second, third, fourth = [at async for at in times_of(pieces())]
    assert before < first < second < third < fourth <= time.monotonic()
    assert third - second == pytest.approx(fourth - third)


async def test_no_event_is_timed_before_an_earlier_one_however_late_that_is_read() -> None:
    """A first token with None for "now" was timed after a second that had waited for it: TPOT was negative."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b'data: {"n": 0}\n\n'
        yield b'data: {"n": 1}\n\ndata: {"n": 2}\n\n'

    times: list[float] = []
    async for at in times_of(pieces()):
        times.append(at)
        await asyncio.sleep(0.02)  # its reader has something to ask first
    assert times == sorted(times)
    assert len(times) == 3


async def times_of(pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[float]:
    async for _, at in contents(pieces):
        yield at


async def test_a_reader_that_rests_is_not_sent_more_than_it_may_hold(tmp_path: Path) -> None:
    large = b"%03d" + b"x" * 8192
    count = 4 * BUFFERED_BYTES_MAX // 8192
    async with engine(tmp_path, large, count) as socket, exchange(socket, "POST", "/") as reply:
        first = await anext(reply.pieces)
        await asyncio.sleep(0.1)  # longer than it reads nothing between two arrivals
        second = await anext(reply.pieces)
        rest = [piece async for piece in reply.pieces]
    whole = b"".join([first, second, *rest])
    assert len(whole) == len(large % 0) * count
    assert len(second) <= BUFFERED_BYTES_MAX + 256 * 1024  # asyncio reads at most 256 KiB at once
