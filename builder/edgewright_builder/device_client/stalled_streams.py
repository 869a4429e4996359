"""Cancels a stream that stays open and makes no progress."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Cancellable(Protocol):
    """A call under way."""

    def cancel(self) -> bool: ...  # noqa: D102


class SilenceWatch:
    """Cancels a call that has made no progress for `seconds`; one timer serves for all messages."""

    def __init__(self, call: Cancellable, seconds: float | None) -> None:
        self._call = call
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.is_over = False

    def __enter__(self) -> SilenceWatch:
        self._wait(self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def moved(self) -> None:
        """Tells that the call got on."""
        self._moved_at = self._loop.time()

    def _wait(self, seconds: float | None) -> None:
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        assert self._seconds is not None
        left_seconds = self._moved_at + self._seconds - self._loop.time()
        if left_seconds > 0:
            self._wait(left_seconds)
            return
        self.is_over = True
        self._call.cancel()
