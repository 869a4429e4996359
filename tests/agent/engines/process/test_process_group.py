"""Engines of several processes end as one, and say which of them was the first."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import psutil
import pytest

from edgewright_agent.engines import DeathCause
from edgewright_agent.engines.process.process import EngineProcess
from edgewright_agent.engines.process.process_group import descendants, first_to_end

# A front that starts two processes and says so; like vLLM's, they are in its group and outlive it.
FRONT = """
import subprocess, sys, time
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("started", flush=True)
time.sleep(60)
"""


@pytest.fixture
async def front() -> AsyncIterator[EngineProcess]:
    started = asyncio.Event()
    process = await EngineProcess.spawn(
        [sys.executable, "-c", FRONT], dict(os.environ), on_line=lambda _: started.set()
    )
    await asyncio.wait_for(started.wait(), 30)
    process.end_with_its_processes()
    yield process
    await process.stop()


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def all_gone(pids: list[int]) -> bool:
    """Killed they are; a process closes its files, which the engine's death waits for, a moment before it is gone."""
    for _ in range(100):
        if not any(map(alive, pids)):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_when_a_child_ends_the_others_do_and_the_death_names_it(front: EngineProcess) -> None:
    children = descendants(front.pid)
    assert len(children) == 2
    await asyncio.sleep(0)  # the watch begins
    first = min(children)
    os.kill(first, signal.SIGTERM)
    death = await asyncio.wait_for(front.wait(), 10)
    assert (death.cause, death.lost) == (DeathCause.KILLED, children[first])
    assert await all_gone([front.pid, *children])


async def test_when_the_front_ends_it_is_its_own_death(front: EngineProcess) -> None:
    children = descendants(front.pid)
    await asyncio.sleep(0)
    os.kill(front.pid, signal.SIGKILL)
    death = await asyncio.wait_for(front.wait(), 10)
    assert (death.signal, death.lost) == (signal.SIGKILL, "")
    assert await all_gone([front.pid, *children])


async def test_stopping_is_no_loss(front: EngineProcess) -> None:
    await asyncio.sleep(0)
    death = await front.stop()
    assert (death.cause, death.lost) == (DeathCause.STOPPED, "")


async def test_a_process_that_is_gone_already_is_the_first_to_end() -> None:
    assert await first_to_end({2**22 - 1: "nobody"}) == "nobody"
    assert descendants(2**22 - 1) == {}
