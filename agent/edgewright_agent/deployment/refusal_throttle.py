"""Has a client wait whose requests are refused again and again, so that refusing them costs the board little.

The engine has to read a prompt or a schema before it can refuse it, at the cost of everybody's tokens. A client may
make mistakes: only what takes time counts, and the first seconds of it are free.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from edgewright.errors import BusyError
from edgewright.v1.common_pb2 import Reason

FREE_SECONDS = 2.0  # of the engine's time, for refusals of one client
SHARE = 0.05  # of the engine's time, for those beyond
QUICK_SECONDS = 0.02  # a refusal that takes no longer costs nothing
PAUSE_SECONDS_MAX = 10.0  # a request that would wait longer is refused at once
CLIENTS_KEPT = 256


@dataclass
class _Debt:
    """Seconds of the engine's time, as of a moment."""

    seconds: float
    at: float


class Refusals:
    """What refused requests have cost, by client. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._debts: OrderedDict[str, _Debt] = OrderedDict()

    def note(self, client: str, seconds: float) -> None:
        """Counts a refused request of a client that kept the engine busy for so long."""
        if seconds <= QUICK_SECONDS:
            return
        self._debts[client] = _Debt(self._debt_seconds(client) + seconds, self._clock())
        self._debts.move_to_end(client)
        while len(self._debts) > CLIENTS_KEPT:
            self._debts.popitem(last=False)

    def pause_seconds(self, client: str) -> float:
        """Returns how long the client's next request has to wait."""
        return max(0.0, self._debt_seconds(client) - FREE_SECONDS) / SHARE

    async def wait(self, client: str) -> None:
        """Returns once the client may ask. Raises BusyError (`OVERLOADED`) where that takes too long."""
        pause_seconds = self.pause_seconds(client)
        if pause_seconds > PAUSE_SECONDS_MAX:
            seconds = round(pause_seconds)
            message = f"Many requests of this client were refused. Mend them, and try again in {seconds} s."
            raise BusyError(message, Reason.REASON_OVERLOADED, retry_seconds=seconds)
        if pause_seconds:
            await asyncio.sleep(pause_seconds)

    def _debt_seconds(self, client: str) -> float:
        debt = self._debts.get(client)
        return 0.0 if debt is None else max(0.0, debt.seconds - SHARE * (self._clock() - debt.at))
