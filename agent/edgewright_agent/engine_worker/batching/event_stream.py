"""From the model's thread to the event loop: rarely, and without giving up the interpreter on the way.

A thread that wakes up takes some 0.2 ms of the cores that compute the next token, most of it to fetch its memory
again, which the model's weights have driven out of the caches. So what is not urgent waits for its like.
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
SPACING_SECONDS = 0.04  # as a film: 25 times a second is smooth to whoever reads
# `call_soon_threadsafe` wakes the loop by a system call that lets go of the interpreter lock: the loop takes it, and
# the model waits for the loop before it can begin its next step. A call through PyDLL keeps the lock.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_ONE = (1).to_bytes(8, sys.byteorder)  # eventfd(2)


class Outlet(Generic[Item]):
    """`put` in one thread, `take` called for each item in the loop's, in order.

    An item arrives at once if it is urgent or the last ones are `SPACING_SECONDS` ago, else when they are.
    """

    def __init__(self, take: Callable[[Item], None]) -> None:
        self._take = take
        self._items: deque[Item] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._resting = True  # the loop will not look by itself
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Items arrive in `loop` from now on."""
        self._loop = loop
        loop.add_reader(self._event, self._on_event)

    def put(self, item: Item, *, urgent: bool) -> None:
        """Sends the item on its way."""
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
        self._resting = True  # before the look: what is put after it finds us resting
        if self._items:
            self._resting = False
            self._drain()
