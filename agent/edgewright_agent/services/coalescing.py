"""Puts items of a stream together that are here at the same time: a message costs more than what it carries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def coalesced(items: AsyncGenerator[Item, None]) -> AsyncGenerator[list[Item], None]:
    """Yields all that has come since the last bundle, as soon as something has.

    What `items` raises is raised after all that came before it. `aclose()` closes `items` at once, too.
    """
    waiting: list[Item] = []
    news = asyncio.Event()

    async def collect() -> None:
        async with aclosing(items):
            async for item in items:
                waiting.append(item)
                news.set()

    collecting = asyncio.create_task(collect())
    collecting.add_done_callback(lambda _: news.set())
    try:
        while waiting or not collecting.done():
            await news.wait()
            news.clear()
            if waiting:
                bundle = waiting.copy()
                waiting.clear()
                yield bundle
        await collecting
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
