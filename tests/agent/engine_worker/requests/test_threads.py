"""Requests are prepared in threads: one that takes too long is ended, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.requests import threads as module
from edgewright_agent.engine_worker.requests.exit_codes import ENDED_BY_REQUEST
from edgewright_agent.engine_worker.requests.threads import Preparation, PreparationThreads
from edgewright_agent.engines.process.death import DeathCause, classify


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARE_SECONDS", 0.3)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)


def loop_for_ever() -> None:
    count = 0
    while True:
        count += 1


async def test_a_result_and_an_error_reach_whoever_asked() -> None:
    threads = PreparationThreads()
    assert await threads.run(lambda _: 7) == 7
    with pytest.raises(InvalidRequestError, match="no"):
        await threads.run(lambda _: (_ for _ in ()).throw(InvalidRequestError("no")))
    assert threads.count == 0


async def test_a_panic_of_a_library_is_an_error_and_the_thread_goes_on() -> None:
    class PanicError(BaseException):
        pass

    def panic(_: Preparation) -> None:
        raise PanicError("the library gave up")

    threads = PreparationThreads()
    with pytest.raises(RuntimeError, match="PanicError: the library gave up"):
        await threads.run(panic)
    assert await threads.run(lambda _: 1) == 1


async def test_python_that_loops_is_interrupted_and_the_event_loop_runs_on() -> None:
    def loop(preparation: Preparation) -> None:
        preparation.stage = "rendering"
        preparation.interruptible(loop_for_ever)

    threads = PreparationThreads()
    looping = asyncio.create_task(threads.run(loop))
    await asyncio.sleep(0.05)
    assert await threads.run(lambda _: "beside it") == "beside it"
    with pytest.raises(InvalidRequestError, match=r"more than 0\.3 s .*rendering") as caught:
        await looping
    assert caught.value.status == 400
    assert await threads.run(lambda _: "after it") == "after it"


async def test_work_in_pieces_ends_between_two() -> None:
    def work(preparation: Preparation) -> None:
        while True:
            time.sleep(0.01)
            preparation.check()

    with pytest.raises(InvalidRequestError, match="more than"):
        await PreparationThreads().run(work)


async def test_whoever_leaves_ends_its_work() -> None:
    begun, ended = threading.Event(), threading.Event()

    def loop(preparation: Preparation) -> None:
        begun.set()
        try:
            preparation.interruptible(loop_for_ever)
        finally:
            ended.set()

    threads = PreparationThreads()
    looping = asyncio.create_task(threads.run(loop))
    assert await asyncio.to_thread(begun.wait, 10)
    looping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looping
    assert await asyncio.to_thread(ended.wait, 10)
    assert await threads.run(lambda _: 1) == 1
    assert threads.count == 0


async def test_work_of_somebody_who_left_the_queue_is_never_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THREADS_MAX", 1)
    threads, begun, hold = PreparationThreads(), threading.Event(), threading.Event()
    first = asyncio.create_task(threads.run(lambda _: hold.wait(10)))
    second = asyncio.create_task(threads.run(lambda _: begun.set()))
    await asyncio.sleep(0.05)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    hold.set()
    await first
    await threads.run(lambda _: None)
    assert not begun.is_set()


async def test_an_interruption_that_comes_at_any_moment_stays_with_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many short loops end while they are being interrupted; none of that reaches the next request."""
    monkeypatch.setattr(module, "THREADS_MAX", 1)
    monkeypatch.setattr(module, "PREPARE_SECONDS", 100.0)
    threads = PreparationThreads()

    def interrupters() -> Iterator[float]:
        yield from (n * 2e-5 for n in range(200))

    def work(delay_seconds: float) -> Callable[[Preparation], str]:
        def run(preparation: Preparation) -> str:
            timer = threading.Timer(delay_seconds, preparation.interrupt)
            timer.start()

            def count() -> str:
                for _ in range(2000):
                    pass
                return "counted"

            try:
                return preparation.interruptible(count)
            finally:
                timer.join()

        return run

    outcomes: set[str] = set()
    for delay_seconds in interrupters():
        try:
            outcomes.add(await threads.run(work(delay_seconds)))
        except InvalidRequestError:
            outcomes.add("interrupted")
        assert await threads.run(lambda _: sum(range(500))) == 124750
    assert outcomes <= {"counted", "interrupted"}


def test_what_can_be_neither_interrupted_nor_asked_ends_the_process_and_says_that_a_request_did() -> None:
    code = """
import asyncio, time
from edgewright_agent.engine_worker.requests import threads
threads.STUCK_SECONDS, threads.LOOK_SECONDS = 0.3, 0.05
def stuck(preparation):
    preparation.stage = "tokenizing its prompt"
    time.sleep(60)
asyncio.run(threads.PreparationThreads().run(stuck))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ENDED_BY_REQUEST
    lines = done.stderr.splitlines()
    assert "neither prepared nor interrupted within 0.3 s (tokenizing its prompt)" in lines[-1]
    death = classify(done.returncode, asked=False, killed_for_memory=False, last_lines=lines)
    assert death.cause is DeathCause.REQUEST
    assert death.is_of_requests
    assert "brought down by a request" in death.sentence
    assert "tokenizing its prompt" in death.sentence
