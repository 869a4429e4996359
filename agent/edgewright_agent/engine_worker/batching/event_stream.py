"""From the model's thread to the event loop: rarely, and without releasing the interpreter lock on the way.

A thread that wakes up takes some 0.2 ms of the cores that compute the next token. Most of that goes into fetching its
memory again, which the model's weights have driven out of the caches. So items that are not urgent wait and travel
together.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
SPACING_SECONDS = 0.1  # text grows ten times a second, which is faster than anybody reads
# `call_soon_threadsafe` wakes the loop by a system call that releases the interpreter lock. The loop then takes the
# lock, and the model waits for the loop before it can begin its next step. A call through PyDLL keeps the lock.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_ONE = (1).to_bytes(8, sys.byteorder)  # eventfd(2)


class EventStream(Generic[Item]):
    """Hands items of one thread, which calls `put`, to the event loop, which calls `take` for each in order.

    An item arrives at once if it is urgent or if none has arrived for `SPACING_SECONDS`; otherwise it waits that long.
    """

    def __init__(self, take: Callable[[Item], None]) -> None:
        self._take = take
        self._items: deque[Item] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._resting = True  # no timer of the loop will look for items
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets items arrive in `loop` from now on."""
        self._loop = loop
        loop.add_reader(self._event, self._on_event)

    def put(self, item: Item, *, urgent: bool) -> None:
        """Sends the item."""
        self._items.append(item)
        if urgent or self._resting:
            self._resting = False
            _write(self._event, _ONE, 8)

    def _on_event(self) -> None:
        os.eventfd_read(self._event)
        self._drain()

    def _drain(self) -> None:
        while self._items:
            self._take(self._items.popleft())
        if self._timer is not None:
            self._timer.cancel()
        assert self._loop is not None
        self._timer = self._loop.call_later(SPACING_SECONDS, self._look)

    def _look(self) -> None:
        self._resting = True  # set before looking, so that an item put after the look wakes the loop
        if self._items:
            self._resting = False
            self._drain()
