"""One request at a time, in the order they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgewright_agent.engine_worker.backend import InvalidRequestError


class Turns:
    """A fair queue in front of the model, with a bound."""

    def __init__(self, waiting_max: int) -> None:
        self._lock = asyncio.Lock()  # wakes its waiters first come, first served
        self._waiting_max = waiting_max
        self._here = 0

    def check_room(self) -> None:
        """Raise InvalidRequestError (429) if the queue is full."""
        if self._here > self._waiting_max:
            raise InvalidRequestError(
                f"{self._here} requests are served or wait, at most {self._waiting_max + 1} may; ask again later.",
                "overloaded",
                429,
            )

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn and hold it."""
        self._here += 1
        try:
            async with self._lock:
                yield
        finally:
            self._here -= 1
