"""How long to wait before asking again, and when to give up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from edgewright.errors import EdgewrightError


def jittered_seconds(failures: int, *, base_seconds: float, cap_seconds: float) -> float:
    """Returns a delay uniform in [0, min(cap, base · 2^failures)], so that many clients don't return at once.

    "Full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    return random.uniform(0, min(cap_seconds, base_seconds * 2.0**failures))  # noqa: S311


class Patience:
    """Waits longer after each failure, and gives up when it has failed for `seconds` and nothing has moved."""

    def __init__(
        self,
        seconds: float,
        *,
        base_seconds: float = 0.2,
        cap_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._base_seconds = base_seconds
        self._cap_seconds = cap_seconds
        self._remaining: int | None = None
        self._failing_since: float | None = None
        self._failures = 0

    def progressed(self, remaining: int) -> None:
        """Tells how much is left to do; less than before counts as movement."""
        if self._remaining is None or remaining < self._remaining:
            self._remaining = remaining
            self.moved()

    def moved(self) -> None:
        """Something has moved: patience is whole again."""
        self._failing_since = None
        self._failures = 0

    async def wait(self, error: EdgewrightError) -> None:
        """Sleeps, or raises `error` if patience has run out: counted from the first failure since something moved.

        So a transfer of hours that has just met its first failure is not given up.
        """
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since > self._seconds:
            raise error
        delay_seconds = jittered_seconds(
            self._failures, base_seconds=self._base_seconds, cap_seconds=self._cap_seconds
        )
        self._failures += 1
        await asyncio.sleep(delay_seconds)
