"""Gives memory back when the agent has come to rest: what an upload or a burst of requests needed, others may use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable

REST_SECONDS = 10.0


@contextlib.asynccontextmanager
async def giving_back(
    activity: Callable[[], Hashable],
    give_back: Callable[[], object],
    rest_seconds: float = REST_SECONDS,
) -> AsyncIterator[None]:
    """Calls `give_back` while the context is open, once after each time in which `activity` returned something new.

    It has come to rest when `activity` returns the same for `rest_seconds`.
    """
    task = asyncio.create_task(_watch(activity, give_back, rest_seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(
    activity: Callable[[], Hashable], give_back: Callable[[], object], rest_seconds: float
) -> None:
    before = given_back_at = activity()
    while True:
        await asyncio.sleep(rest_seconds)
        now = activity()
        if now == before and now != given_back_at:
            await asyncio.to_thread(give_back)
            given_back_at = now
        before = now
