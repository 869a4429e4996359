"""Which failures of a call are worth asking again, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edgewright.errors import BusyError, EdgewrightError
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.device_client.backoff import Patience, jittered_seconds
from edgewright_builder.device_client.failures import LinkError

LINK_RETRIES = 4
LINK_SECONDS = 90.0  # for a call that got through before and is begun anew
SOON_SECONDS = 120.0  # an engine of 4 GB starts from an SD card within this time
RETRY_SECONDS_MAX = 5  # what a board may ask for between two calls
SOON_REASONS = frozenset({Reason.REASON_ENGINE_STARTING, Reason.REASON_OVERLOADED})

OnWait = Callable[[EdgewrightError], None]


def hear_nothing(error: EdgewrightError) -> None:
    """Waits in silence."""


IsChanging = Callable[[], Awaitable[bool]]


class Retries:
    """Decides for one call whether it is made again.

    A board says "soon" by a reason: its engine is being started, it is over capacity or, with `busy`, another such
    call is under way. So does a board that serves nothing while it changes releases. `soon_seconds` of 0 asks once.
    """

    def __init__(self, soon_seconds: float, *, busy: bool, on_wait: OnWait, is_changing: IsChanging) -> None:
        self._has_begun = False
        self._link_failures = 0
        self._links = Patience(LINK_SECONDS)
        self._soon_seconds = soon_seconds
        self._soon = Patience(soon_seconds, base_seconds=0.5, cap_seconds=2.0)
        self._busy = busy
        self._on_wait = on_wait
        self._is_changing = is_changing

    def began(self) -> None:
        """Tells that the call got an answer: address and credentials are right, so a broken link is waited for."""
        self._has_begun = True

    async def wait(self, error: EdgewrightError) -> None:
        """Waits until the call may be made again; raises `error` if that would not help, or the time is over."""
        if isinstance(error, LinkError):
            await self._wait_for_link(error)
        elif await self._is_soon(error):
            self._on_wait(error)
            if isinstance(error, BusyError):
                await asyncio.sleep(min(error.retry_seconds, RETRY_SECONDS_MAX))
            await self._soon.wait(error)
        else:
            raise error

    async def _wait_for_link(self, error: LinkError) -> None:
        if self._has_begun:
            self._on_wait(error)
            await self._links.wait(error)
            return
        if self._link_failures == LINK_RETRIES:
            raise error
        await asyncio.sleep(jittered_seconds(self._link_failures, base_seconds=0.2, cap_seconds=2.0))
        self._link_failures += 1

    async def _is_soon(self, error: EdgewrightError) -> bool:
        if not self._soon_seconds:
            return False
        if error.reason == Reason.REASON_NO_ACTIVE_RELEASE:
            return await self._is_changing()
        return error.reason in SOON_REASONS or (self._busy and error.reason == Reason.REASON_BUSY)
