"""Limits how many requests the engine gets at once to what the plan allows. A few more wait; the rest are refused."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

from edgewright.errors import BusyError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.runtime.threads import within

WAITING_PER_SLOT = 4
WAITING_MIN = 8  # so that eight clients at once are served, one after the other, whatever the plan allows
WAIT_SECONDS = 60.0
RETRY_SECONDS_MAX = 60
_WEIGHT = 0.2  # of the newest request in the mean


class RequestSlots:
    """A semaphore of `slots` with a short queue."""

    def __init__(self, slots: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._count = slots
        self._waiting = 0
        self._waiting_max = max(WAITING_MIN, slots * WAITING_PER_SLOT)
        self._wait_seconds = wait_seconds
        self.admitted = 0  # requests since the engine was started
        self._held = 0
        self._held_seconds = 0.0  # moving mean of how long a slot is held
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.asynccontextmanager
    async def admit(self, *, patient: bool = False) -> AsyncIterator[None]:
        """Holds a slot. Raises BusyError (`OVERLOADED`) if the queue is full or moves too slowly.

        `patient` waits without a limit: a benchmark measures its own queue.
        """
        await (self._slots.acquire() if patient else self._enter())
        self.admitted += 1
        self._held += 1
        self._idle.clear()
        begin = time.monotonic()
        try:
            yield
        finally:
            self._note(time.monotonic() - begin)
            self._held -= 1
            if not self._held:
                self._idle.set()
            self._slots.release()

    async def drain(self, seconds_max: float) -> None:
        """Returns once no slot is held, or after `seconds_max`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(seconds_max, self._idle.wait())

    @property
    def retry_seconds(self) -> int:
        """Returns when a place in the queue is likely to be free: the mean time of a request, divided by the slots."""
        return max(1, min(math.ceil(self._held_seconds / self._count), RETRY_SECONDS_MAX))

    def _note(self, held_seconds: float) -> None:
        mean_seconds = self._held_seconds or held_seconds
        self._held_seconds = mean_seconds + _WEIGHT * (held_seconds - mean_seconds)

    async def _enter(self) -> None:
        if self._slots.locked() and self._waiting >= self._waiting_max:
            raise self._overloaded(f"{self._waiting} requests wait already")
        self._waiting += 1
        try:
            await within(self._wait_seconds, self._slots.acquire(), undo=lambda _: self._slots.release())
        except asyncio.TimeoutError:
            raise self._overloaded(f"no slot came free within {self._wait_seconds:g} s") from None
        finally:
            self._waiting -= 1

    def _overloaded(self, why: str) -> BusyError:
        seconds = self.retry_seconds
        message = f"The board is over capacity: {why}. Try again in {seconds} s."
        return BusyError(message, Reason.REASON_OVERLOADED, retry_seconds=seconds)
