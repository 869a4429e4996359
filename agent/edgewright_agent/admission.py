"""How many requests the engine gets at once: what the plan allows. A few more wait, the rest are refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import BusyError

WAITING_PER_SLOT = 4
WAIT_SECONDS = 10.0


class Admission:
    """A gate of `slots`, with a short queue before it."""

    def __init__(self, slots: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._waiting = 0
        self._waiting_max = slots * WAITING_PER_SLOT
        self._wait_seconds = wait_seconds
        self._held = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.asynccontextmanager
    async def admit(self, *, patient: bool = False) -> AsyncIterator[None]:
        """Holds a slot. Raises BusyError (`OVERLOADED`) if the queue is full or moves too slowly.

        The patient wait for ever: a benchmark measures its own queue.
        """
        await (self._slots.acquire() if patient else self._enter())
        self._held += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._idle.set()
            self._slots.release()

    async def drain(self, seconds_max: float) -> None:
        """Returns once no slot is held, or after `seconds_max`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds_max)

    async def _enter(self) -> None:
        if self._slots.locked() and self._waiting >= self._waiting_max:
            raise _overloaded(f"{self._waiting} requests wait already")
        self._waiting += 1
        try:
            await asyncio.wait_for(self._slots.acquire(), self._wait_seconds)
        except asyncio.TimeoutError:
            raise _overloaded(f"no slot came free within {self._wait_seconds:g} s") from None
        finally:
            self._waiting -= 1


def _overloaded(why: str) -> BusyError:
    return BusyError(f"The board is over capacity: {why}. Try again later.", Reason.REASON_OVERLOADED)
