"""From the model's thread to the event loop: all of it, in order, soon, and rarely."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from edgewright_agent.engine_worker.batching import event_stream as module
from edgewright_agent.engine_worker.batching.event_stream import SPACING_SECONDS, EventStream


class Reader:
    """Takes items and notes when they came."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.wakes: list[float] = []
        self.outlet: EventStream[int] = EventStream(self._take)
        self.outlet.open(asyncio.get_running_loop())

    def _take(self, item: int) -> None:
        now = asyncio.get_running_loop().time()
        if not self.wakes or now - self.wakes[-1] > SPACING_SECONDS / 10:
            self.wakes.append(now)
        self.items.append(item)

    async def until(self, count: int) -> None:
        while len(self.items) < count:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("spacing_seconds", [0.0, 0.0002, 0.001])
async def test_nothing_is_lost_or_reordered_whatever_the_threads_do(
    spacing_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPACING_SECONDS", spacing_seconds)
    reader, chance, count = Reader(), random.Random(7), 2000

    def work() -> None:
        for number in range(count):
            reader.outlet.put(number, urgent=chance.random() < 0.1)
            if chance.random() < 0.5:
                time.sleep(chance.random() * 0.0005)

    threading.Thread(target=work).start()
    await asyncio.wait_for(reader.until(count), 60)
    assert reader.items == list(range(count))


async def test_the_first_item_and_an_urgent_one_come_at_once_and_others_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SPACING_SECONDS", 1e6)
    reader = Reader()
    reader.outlet.put(1, urgent=False)
    await asyncio.wait_for(reader.until(1), 60)
    reader.outlet.put(2, urgent=False)
    reader.outlet.put(3, urgent=True)
    await asyncio.wait_for(reader.until(3), 60)
    reader.outlet.put(4, urgent=False)
    await asyncio.sleep(0.05)
    assert reader.items == [1, 2, 3]
    monkeypatch.setattr(module, "SPACING_SECONDS", 0.3)
    reader = Reader()
    reader.outlet.put(1, urgent=False)
    await asyncio.wait_for(reader.until(1), 60)
    reader.outlet.put(2, urgent=False)
    await asyncio.wait_for(reader.until(2), 60)


async def test_fast_items_come_together() -> None:
    reader = Reader()

    def work() -> None:
        for number in range(100):
            reader.outlet.put(number, urgent=False)
            time.sleep(SPACING_SECONDS / 20)

    began = time.monotonic()
    threading.Thread(target=work).start()
    await asyncio.wait_for(reader.until(100), 60)
    assert len(reader.wakes) <= (time.monotonic() - began) / SPACING_SECONDS + 2
