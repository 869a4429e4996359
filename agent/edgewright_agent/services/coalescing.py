"""Puts items of a stream together that are here at the same time: a message costs more than what it carries.

A client that does not read stops the stream: what it has not read is bounded, and so is how long that may last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from edgewright.errors import BusyError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.runtime.threads import within

UNREAD_MAX = 128  # items that wait for the client
STALL_SECONDS = 30.0  # so long they may; then the items are closed, which frees the engine
Item = TypeVar("Item")


async def coalesced(items: AsyncGenerator[Item, None]) -> AsyncGenerator[list[Item], None]:
    """Yields all that has come since the last bundle, as soon as something has.

    What `items` raises is raised after all that came before it. `aclose()` closes `items` at once, too.
    Raises BusyError (`OVERLOADED`) where bundles are not taken for too long.
    """
    waiting: list[Item] = []
    news, room = asyncio.Event(), asyncio.Event()

    async def collect() -> None:
        async with aclosing(items):
            async for item in items:
                waiting.append(item)
                news.set()
                if len(waiting) >= UNREAD_MAX:
                    room.clear()
                    await _wait_for_reader(room)

    collecting = asyncio.create_task(collect())
    collecting.add_done_callback(lambda _: news.set())
    try:
        while waiting or not collecting.done():
            await news.wait()
            news.clear()
            if waiting:
                bundle = waiting.copy()
                waiting.clear()
                room.set()
                yield bundle
        await collecting
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


async def _wait_for_reader(room: asyncio.Event) -> None:
    try:
        await within(STALL_SECONDS, room.wait())
    except asyncio.TimeoutError:
        message = (
            f"Nothing of the answer was read for {STALL_SECONDS:g} s, so it was ended. Read it as it comes."
        )
        raise BusyError(message, Reason.REASON_OVERLOADED) from None
