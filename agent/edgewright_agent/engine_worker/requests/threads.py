"""Threads that prepare requests, so that none of them keeps the event loop or another request waiting for long.

Each request has a deadline. Python code, such as a chat template's, is interrupted then; the tokenizer is asked to
tokenize in pieces, and stops between two. What can be neither interrupted nor asked ends this process, with the reason:
it is the last resort, and a heartbeat's (see the agent) comes after it.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.requests.exit_codes import ENDED_BY_REQUEST

THREADS_MAX = 4
PREPARE_SECONDS = 10.0  # a prompt that fills a context of 128k tokens takes less than 1 s on a Raspberry Pi 5
STUCK_SECONDS = 60.0  # after which the process ends
LOOK_SECONDS = 0.5  # between two looks at what is being prepared
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class Interruption(BaseException):
    """Raised in a thread from outside. No Exception, so that no handler takes it for one."""


class Preparation:
    """One request while it is prepared: its deadline, and the way to interrupt it."""

    def __init__(self) -> None:
        self.stage = "parsing its body"
        self.began_seconds: float | None = None  # on the monotonic clock
        self.abandoned = False  # nobody waits for it any more
        self._lock = threading.Lock()
        self._thread: int | None = None  # while it may be interrupted
        self._sent = False

    @property
    def seconds(self) -> float:
        """How long it has been running; 0 while it waits for a thread."""
        return 0.0 if self.began_seconds is None else time.monotonic() - self.began_seconds

    def check(self) -> None:
        """Raises InvalidRequestError if its time is over. To be called between two pieces of work."""
        if self.abandoned or self.seconds > PREPARE_SECONDS:
            raise self._too_slow()

    def interruptible(self, function: Callable[[], Result]) -> Result:
        """Runs Python code. Raises InvalidRequestError once the request's time is over."""
        received = False
        try:
            try:
                self._open()
                return function()
            except Interruption:
                received = True
                raise
            finally:
                self._close(received)
        except Interruption:
            raise self._too_slow() from None

    def interrupt(self) -> None:
        """Raises Interruption in its thread, if it runs code that may be interrupted. From any thread."""
        with self._lock:
            if self._thread is not None and not self._sent:
                self._sent = True
                thread, error = ctypes.c_ulong(self._thread), ctypes.py_object(Interruption)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)

    def _open(self) -> None:
        self.check()
        with self._lock:
            self._thread = threading.get_ident()

    def _close(self, received: bool) -> None:
        with self._lock:
            self._thread = None
            expected = self._sent and not received
        while expected:  # it is on its way, and must not arrive in what this thread does next
            time.sleep(0.001)

    def _too_slow(self) -> InvalidRequestError:
        message = f"The request took more than {PREPARE_SECONDS:g} s to prepare ({self.stage}); shorten or reword it."
        return InvalidRequestError(message, "request_too_slow")


@dataclass(frozen=True)
class _Task:
    """What a thread is given."""

    work: Callable[[Preparation], Any]
    preparation: Preparation
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any]


class PreparationThreads:
    """Up to `THREADS_MAX` threads, started when they are needed. To be used from one event loop."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._preparations: set[Preparation] = set()
        self._threads = 0
        self._looking = False

    @property
    def count(self) -> int:
        """How many requests are being prepared or wait for it."""
        return len(self._preparations)

    async def run(self, work: Callable[[Preparation], Result]) -> Result:
        """Returns the result of `work`, done in a thread. Whoever is cancelled while waiting gives it up."""
        loop = asyncio.get_running_loop()
        task = _Task(work, Preparation(), loop, loop.create_future())
        self._preparations.add(task.preparation)
        if self._threads < min(THREADS_MAX, len(self._preparations)):
            self._threads += 1
            threading.Thread(target=self._serve, name=f"prepare {self._threads}", daemon=True).start()
        self._tasks.put(task)
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK_SECONDS, self._look, loop)
        try:
            result: Result = await task.result
        except asyncio.CancelledError:
            task.preparation.abandoned = True
            task.preparation.interrupt()
            raise
        return result

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Interrupts what takes too long, and ends the process where that does not help."""
        for preparation in self._preparations:
            if preparation.seconds > STUCK_SECONDS:
                _end_process(preparation)
            elif preparation.seconds > PREPARE_SECONDS:
                preparation.interrupt()
        self._looking = bool(self._preparations)
        if self._looking:
            loop.call_later(LOOK_SECONDS, self._look, loop)

    def _serve(self) -> None:
        while True:
            task = self._tasks.get()
            error: BaseException | None = None
            result = None
            task.preparation.began_seconds = time.monotonic()
            try:
                task.preparation.check()
                result = task.work(task.preparation)
            except BaseException as raised:  # noqa: BLE001 - whoever asked gets it, a panic of a library too
                error = raised
            task.loop.call_soon_threadsafe(self._finish, task, result, error)
            del task, result, error  # a thread that waits keeps nothing in memory

    def _finish(self, task: _Task, result: Any, error: BaseException | None) -> None:
        self._preparations.discard(task.preparation)
        if task.result.done():  # nobody waits
            return
        if error is None:
            task.result.set_result(result)
        elif isinstance(error, Exception):
            task.result.set_exception(error)
        else:
            task.result.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))


def _end_process(preparation: Preparation) -> None:
    """Ends the process. The agent starts the engine again, and knows that a request was to blame."""
    line = (
        f"A request could be neither prepared nor interrupted within {STUCK_SECONDS:g} s ({preparation.stage}); "
        "the engine ends itself."
    )
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the agent reads it
    os._exit(ENDED_BY_REQUEST)
