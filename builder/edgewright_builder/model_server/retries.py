"""How a request to a model's server is made again: which faults may pass, and how long to wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx

from edgewright.errors import OutsideError

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # statuses that may pass
BACKOFF_SECONDS_MAX = 60.0
ASKED_SECONDS_MAX = 600.0  # a server may ask for more; it is asked again then
AGAIN = "Run the same command again with --resume to go on."

T = TypeVar("T")


class PassingFaultError(Exception):
    """A fault, in words, that may be over when the request is made again."""

    def __init__(self, fault: str, asked_seconds: float = 0.0) -> None:
        super().__init__(fault)
        self.asked_seconds = asked_seconds  # how long the server asks to be left alone


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is made, and how the waits between grow."""

    attempts: int = 6
    first_wait_seconds: float = 0.5

    async def run(self, request: Callable[[], Awaitable[T]], server: str) -> T:
        """Returns what `request` returns, made again while it raises PassingFaultError or httpx.RequestError.

        Raises OutsideError that names `server` when the last attempt fails too.
        """
        fault = ""
        for attempt in range(self.attempts):
            try:
                return await request()
            except PassingFaultError as error:
                fault, asked_seconds = str(error), error.asked_seconds
            except httpx.RequestError as error:  # also a body that does not decode as its header says
                fault, asked_seconds = " ".join(f"{type(error).__name__}: {error}".split())[:300], 0.0
            if attempt + 1 < self.attempts:
                await asyncio.sleep(max(asked_seconds, self._backoff_seconds(attempt)))
        times = "once" if self.attempts == 1 else f"{self.attempts} times, the last time"
        raise OutsideError(f"{server} failed {times} with {fault}. {AGAIN}")

    def _backoff_seconds(self, attempt: int) -> float:
        """Returns an exponential backoff with jitter, so that refused requests do not come back together."""
        ceiling = min(BACKOFF_SECONDS_MAX, self.first_wait_seconds * 2**attempt)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - not for secrets


USUAL_POLICY = RetryPolicy()


def asked_seconds(headers: httpx.Headers) -> float:
    """Returns how long the header Retry-After asks to wait, at most ten minutes; 0 where it says nothing.

    It holds seconds or a date (RFC 9110, section 10.2.3).
    """
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return min(ASKED_SECONDS_MAX, seconds) if seconds > 0 else 0.0  # NaN is not above zero


def _seconds_until(date: str) -> float:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    then = (
        then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    )  # a zone of -0000 is UTC without a place
    return (then - datetime.now(UTC)).total_seconds()
