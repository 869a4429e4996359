"""From the model's thread to the event loop, without giving up the interpreter on the way."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
# `call_soon_threadsafe` wakes the loop by a system call that lets go of the interpreter lock: the loop takes it, and
# the model waits for the loop before it can begin its next step. A call through PyDLL keeps the lock.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_ONE = (1).to_bytes(8, sys.byteorder)  # eventfd(2)


class Outlet(Generic[Item]):
    """`put` in one thread, `take` called for each item in the loop's."""

    def __init__(self, take: Callable[[Item], None]) -> None:
        self._take = take
        self._items: deque[Item] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Items arrive in `loop` from now on."""
        loop.add_reader(self._event, self._drain)

    def put(self, item: Item) -> None:
        """Sends the item on its way."""
        self._items.append(item)
        _write(self._event, _ONE, 8)

    def _drain(self) -> None:
        os.eventfd_read(self._event)
        while self._items:
            self._take(self._items.popleft())
