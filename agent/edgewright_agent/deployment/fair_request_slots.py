"""Limits how many requests the engine gets at once to what the plan allows, and shares them among its clients.

A few more requests wait, the rest are refused. A free slot goes to the client that holds the fewest, among equals to
the one that got its last slot the longest ago. A full queue makes room at the cost of the client that has the most in
it. So a client that asks for much waits for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from edgewright.errors import BusyError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.runtime.threads import within

WAITING_PER_SLOT = 4
WAITING_MIN = 8  # so that eight clients at once are served, one after the other, whatever the plan allows
WAIT_SECONDS = 60.0
RETRY_SECONDS_MAX = 60
# So long a client's share is kept free for its next request: others, who ask for more than theirs, may hold slots long.
KEPT_SECONDS = 2.0
OURSELVES = "this agent"
_WEIGHT = 0.2  # of the newest request in the mean


@dataclass(eq=False)
class _Waiter:
    """A request without a slot. `turn` ends with a slot, or with why there is none."""

    client: str
    patient: bool
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RequestSlots:
    """`slots` places and a short queue. Belongs to one event loop."""

    def __init__(
        self, slots: int, wait_seconds: float = WAIT_SECONDS, kept_seconds: float = KEPT_SECONDS
    ) -> None:
        self._count = slots
        self._waiting: list[_Waiter] = []  # in the order they came
        self._waiting_max = max(WAITING_MIN, slots * WAITING_PER_SLOT)
        self._wait_seconds = wait_seconds
        self._kept_seconds = kept_seconds
        self.admitted = 0  # requests since the engine was started
        self._held: Counter[str] = Counter()  # slots, by client
        self._turns: dict[str, int] = {}  # what `admitted` was when a client got its last slot
        self._left: dict[str, float] = {}  # when clients that hold nothing gave their last slot back
        self._look: asyncio.TimerHandle | None = None
        self._held_seconds = 0.0  # moving mean of how long a slot is held
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.asynccontextmanager
    async def admit(self, client: str = OURSELVES, *, patient: bool = False) -> AsyncIterator[None]:
        """Holds a slot for a client. Raises BusyError (`OVERLOADED`) if the queue is full or moves too slowly.

        `patient` waits without a limit: a benchmark measures its own queue.
        """
        await self._enter(_Waiter(client, patient))
        begin = time.monotonic()
        try:
            yield
        finally:
            self._note(time.monotonic() - begin)
            self._give_back(client)

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

    async def _enter(self, waiter: _Waiter) -> None:
        """Returns with a slot. Who is cancelled just as it comes gives it back."""
        self._waiting.append(waiter)
        self._grant()
        self._make_room(waiter.client)
        try:
            await asyncio.wait((waiter.turn,), timeout=None if waiter.patient else self._wait_seconds)
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.turn.exception() is None:
                self._give_back(waiter.client)
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if not waiter.turn.done():
            raise self._overloaded(f"no slot came free within {self._wait_seconds:g} s")
        waiter.turn.result()

    def _make_room(self, client: str) -> None:
        """Refuses the newest request of the client with the most in the queue, if the queue is too long.

        That is `client` itself, which has just come, unless another has more. The patient are no part of the queue.
        """
        queue = [waiter for waiter in self._waiting if not waiter.patient]
        if len(queue) <= self._waiting_max:
            return
        counts = Counter(waiter.client for waiter in queue)
        most = max(counts, key=lambda name: (counts[name], name == client))
        newest = next(waiter for waiter in reversed(queue) if waiter.client == most)
        self._waiting.remove(newest)
        newest.turn.set_exception(self._overloaded(f"{self._waiting_max} requests wait already"))

    def _grant(self) -> None:
        """Gives free slots to those who wait. Looks again later where one is only kept for somebody else."""
        while self._waiting and self._held.total() < self._count:
            kept = self._kept()
            waiter = min(self._waiting, key=self._precedence)
            if self._held[waiter.client] >= self._share(kept) and self._held.total() + kept >= self._count:
                if self._look is None:
                    loop = asyncio.get_running_loop()
                    self._look = loop.call_later(self._kept_seconds, self._look_again)
                return
            self._waiting.remove(waiter)
            self._held[waiter.client] += 1
            self.admitted += 1
            self._turns[waiter.client] = self.admitted
            self._left.pop(waiter.client, None)
            self._idle.clear()
            waiter.turn.set_result(None)

    def _precedence(self, waiter: _Waiter) -> tuple[int, int]:
        return self._held[waiter.client], self._turns.get(waiter.client, 0)

    def _look_again(self) -> None:
        self._look = None
        self._grant()

    def _kept(self) -> int:
        """Returns how many clients hold nothing at the moment, wait for nothing, and may ask again soon."""
        since = time.monotonic() - self._kept_seconds
        self._left = {client: left for client, left in self._left.items() if left > since}
        waiting = {waiter.client for waiter in self._waiting}
        known = self._left.keys() | self._held.keys() | waiting
        self._turns = {client: turn for client, turn in self._turns.items() if client in known}
        return len(self._left.keys() - waiting)

    def _share(self, kept: int) -> int:
        """Returns how many slots each client may hold where all of them want some."""
        clients = len(self._held.keys() | {waiter.client for waiter in self._waiting}) + kept
        return max(1, self._count // clients)

    def _give_back(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
            self._left[client] = time.monotonic()
        if not self._held:
            self._idle.set()
        self._grant()

    def _overloaded(self, why: str) -> BusyError:
        seconds = self.retry_seconds
        message = f"The board is over capacity: {why}. Try again in {seconds} s."
        return BusyError(message, Reason.REASON_OVERLOADED, retry_seconds=seconds)
