"""One event loop in a thread of its own, in which every synchronous call of the SDK runs.

So `Board` is `AsyncBoard` called from outside, also where a loop runs already, as in Jupyter. What a caller listens to
is called in the caller's own thread: a notebook shows it under the cell that asked.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from edgewright.errors import InputError

T = TypeVar("T")
Event = TypeVar("Event")
CANCEL_SECONDS = 5.0  # what a call gets to tell the board that it ends


class LoopThread:
    """Starts its thread when it is first used."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Returns what the coroutine returns; Ctrl-C cancels it and waits for its end."""
        call = self._begin(coroutine)
        try:
            return call.future.result()
        except BaseException:
            call.cancel()
            raise

    def listen(
        self,
        begin: Callable[[Callable[[Event], None]], Coroutine[Any, Any, T]],
        listener: Callable[[Event], None],
    ) -> T:
        """Returns the same, with a listener that is called in this thread. What it raises cancels the call."""
        events: SimpleQueue[tuple[Event] | None] = SimpleQueue()
        call = self._begin(begin(lambda event: events.put((event,))))
        call.future.add_done_callback(lambda _: events.put(None))
        try:
            while (event := events.get()) is not None:
                listener(event[0])
            return call.future.result()
        except BaseException:
            call.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yields the items; whoever stops reading closes the generator."""
        try:
            while True:
                try:
                    yield self.run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            self.run(_close(items))

    def stop(self) -> None:
        """Ends the loop and its thread; the next call starts new ones."""
        with self._starting:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CANCEL_SECONDS)

    def forget(self) -> None:
        """Forgets the thread without a word: after a fork the child has none."""
        self._loop = self._thread = None
        self._starting = threading.Lock()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name="edgewright", daemon=True
                )
                self._thread.start()
            return self._loop

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> _Call[T]:
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise InputError("Board can't be called from within its own loop; use AsyncBoard there.")
        ended = threading.Event()
        return _Call(asyncio.run_coroutine_threadsafe(_tracked(coroutine, ended), self._running()), ended)


@dataclass(frozen=True)
class _Call(Generic[T]):
    """A coroutine on its way; its future is done as soon as it is cancelled, `ended` once its last line has run."""

    future: Future[T]
    ended: threading.Event

    def cancel(self) -> None:
        if self.future.cancel():
            self.ended.wait(CANCEL_SECONDS)


async def _tracked(coroutine: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    try:
        return await coroutine
    finally:
        ended.set()


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await items.__anext__()


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


SHARED = LoopThread()
atexit.register(SHARED.stop)
os.register_at_fork(after_in_child=SHARED.forget)
