"""The thread that runs the model, beside the event loop that talks HTTP.

ONNX Runtime releases the interpreter lock while it computes, so that a token travels to its client while the model
works on the next.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from edgewright_agent.engine_worker.batching.event_stream import EventStream
from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.batching.jobs import UNREAD_MAX, Job
from edgewright_agent.engine_worker.batching.scheduler import Scheduler
from edgewright_agent.engine_worker.model.backend import Backend, InvalidRequestError

WAITING_MAX = 16
# How long the event loop may keep the model waiting for the interpreter. Python's 5 ms are half a small model's step.
SWITCH_SECONDS = 0.0002
logger = logging.getLogger(__name__)


class ModelThread:
    """Runs jobs. Its public methods belong to the event loop's thread."""

    def __init__(self, backend: Backend, sequences_max: int, prompt_memory: Turns) -> None:
        self._backend = backend
        self._sequences_max = sequences_max
        self._scheduler = Scheduler(backend, sequences_max, prompt_memory)
        self._inbox: queue.SimpleQueue[Job | Heartbeat | None] = queue.SimpleQueue()  # None: look again
        self._heartbeats: list[Heartbeat] = []  # taken from the inbox, and not answered yet
        self._stream: EventStream[tuple[Job, Sequence[Any]]] = EventStream(_put)
        self._open = False
        self._requests = 0
        sys.setswitchinterval(SWITCH_SECONDS)
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def together(self, sequence_tokens: int) -> int:
        """Returns how many sequences of that length are computed at the same time; others wait for the end of one."""
        width = self._backend.layout.width_tokens(sequence_tokens)
        return min(self._sequences_max, self._backend.pool_tokens // width)

    def check_room(self, preparing: int = 0) -> None:
        """Raises InvalidRequestError (429) if as many requests as may are served, wait or are being prepared."""
        requests = self._requests + preparing
        if requests >= self._sequences_max + WAITING_MAX:
            raise InvalidRequestError(
                f"{requests} requests are served or wait, and no more may; ask again later.",
                "overloaded",
                429,
            )

    async def results(self, job: Job) -> AsyncGenerator[Sequence[Any], None]:
        """Puts the job at the end of the queue; yields its results, those together that come together.

        A job whose results are not taken is paused until they are. Closing the generator cancels the job.
        """
        if not self._open:
            self._stream.open(asyncio.get_running_loop())
            self._open = True
        self._requests += 1
        self._inbox.put(job)
        try:
            while True:
                results = await job.arrivals.take()
                if len(results) >= UNREAD_MAX:  # it is paused, and may go on
                    self._inbox.put(None)
                if results[-1] is None or isinstance(results[-1], Exception):
                    break
                yield results
            if results[:-1]:
                yield results[:-1]
            if results[-1] is not None:
                raise results[-1]
        finally:
            job.cancelled = True
            self._requests -= 1
            if job.arrivals.are_full:
                self._inbox.put(None)

    async def heartbeat(self) -> None:
        """Returns once the model has computed something after this call; raises what the model raised.

        While requests are served their next turn is the proof; otherwise the model reads two tokens for nobody.
        """
        heartbeat = Heartbeat()
        self._inbox.put(heartbeat)
        await heartbeat.answer

    def _work(self) -> None:
        while True:
            self._take_in()
            try:
                for job, error in self._scheduler.turn():
                    self._deliver(job, error)
            except Exception as error:  # the thread is the engine: it must not end silently
                logger.exception("the scheduler failed")
                for job, _ in self._scheduler.fail_all(error):
                    self._deliver(job, error)
            if self._heartbeats:
                self._answer_heartbeats(None)

    def _take_in(self) -> None:
        """Takes new jobs and heartbeats; waits for one if there is nothing to do."""
        while not self._scheduler.busy or not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, Job):
                self._scheduler.add(item)
            elif item is None:
                self._scheduler.look_again()
            else:
                self._heartbeats.append(item)
            if not self._scheduler.busy:
                self._beat()

    def _beat(self) -> None:
        try:
            self._scheduler.compute_for_nobody()
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the thread goes on
            self._answer_heartbeats(error)
        else:
            self._answer_heartbeats(None)

    def _answer_heartbeats(self, error: Exception | None) -> None:
        while self._heartbeats:
            self._heartbeats.pop().resolve(error)

    def _deliver(self, job: Job, error: Exception | None) -> None:
        """Sends the job's new results to the event loop, and None or the error after the last one."""
        results, job.out = job.out, []
        is_first, job.has_results = not job.has_results, True
        if error is not None:
            results.append(error)
        elif job.row is None:
            results.append(None)
        self._stream.put((job, results), urgent=is_first or error is not None or job.row is None)


class Heartbeat:
    """A question whether the model still computes. Made in the event loop, resolved in the model's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[None] = self._loop.create_future()

    def resolve(self, error: Exception | None) -> None:
        """Answers: the model computed, or it raised `error`."""
        self._loop.call_soon_threadsafe(self._set, error)

    def _set(self, error: Exception | None) -> None:
        if self.answer.done():  # whoever asked has left
            return
        if error is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(error)


def _put(sent: tuple[Job, Sequence[Any]]) -> None:
    job, results = sent
    job.arrivals.put(results)
