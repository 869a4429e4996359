"""Reads the messages of one client stream, and gives up on a stream that stalls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, TypeVar

from edgewright.errors import EdgewrightError, OutsideError
from edgewright_agent.runtime.threads import within

DRAIN_MESSAGES = 32
DRAIN_SECONDS = 2.0
DRAIN_IDLE_SECONDS = 0.2

Request = TypeVar("Request")


class RequestReader(Generic[Request]):
    """Awaits each message for `stall_seconds` at most. An async context manager.

    One timer serves the whole stream: a task or a timeout per message costs more than the message.
    """

    def __init__(self, requests: AsyncIterator[Request], stall_seconds: float) -> None:
        self._requests = requests
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._waiting_since: float | None = None  # None while a message is worked on
        self._stalled = False
        self._timer = self._loop.call_later(stall_seconds, self._look)

    async def __aenter__(self) -> RequestReader[Request]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    async def next(self) -> Request | None:
        """Returns the next message, None after the last. Raises OutsideError if none comes in time."""
        self._waiting_since = self._loop.time()
        try:
            return await anext(self._requests)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            if not self._stalled:
                raise
            raise self._stall() from None
        finally:
            self._waiting_since = None

    async def drain(self) -> None:
        """Reads on for a moment: a client that is cut off while it writes may never read why."""
        with contextlib.suppress(EdgewrightError, asyncio.TimeoutError):
            await within(DRAIN_SECONDS, self._drain())

    async def _drain(self) -> None:
        for _ in range(DRAIN_MESSAGES):
            if await within(DRAIN_IDLE_SECONDS, self.next()) is None:
                return

    def _look(self) -> None:
        since = self._loop.time() if self._waiting_since is None else self._waiting_since
        left_seconds = since + self._stall_seconds - self._loop.time()
        if left_seconds > 0:
            self._timer = self._loop.call_later(left_seconds, self._look)
        elif self._task is not None:
            self._stalled = True
            self._task.cancel()

    def _stall(self) -> OutsideError:
        uncancel = getattr(self._task, "uncancel", None)  # Python 3.11: what we asked for is dealt with
        if uncancel is not None:
            uncancel()
        return OutsideError(
            f"Nothing came for {self._stall_seconds:g} s; what is durable stays. Ask FindMissingBlobs and go on."
        )
