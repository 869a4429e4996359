"""A cancellation counts, also where it comes just as what was waited for is here."""

from __future__ import annotations

import asyncio

import pytest

from edgewright_agent.deployment.fair_request_slots import RequestSlots
from edgewright_agent.runtime.threads import within

STEPS = range(12)  # of the event loop, between what is waited for and the cancellation


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("steps", STEPS)
async def test_who_leaves_as_a_slot_comes_free_does_not_keep_it(steps: int) -> None:
    gate, leave, served = RequestSlots(1), asyncio.Event(), []

    async def hold() -> None:
        async with gate.admit():
            await leave.wait()

    async def ask() -> None:
        async with gate.admit():
            await asyncio.sleep(0.01)
            served.append("to the end")

    holder = asyncio.create_task(hold())
    await turns(3)
    waiter = asyncio.create_task(ask())
    await turns(3)
    leave.set()
    await turns(steps)
    waiter.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    assert waiter.cancelled()
    assert served == []
    async with gate.admit():  # and the slot is free
        pass


@pytest.mark.parametrize("steps", STEPS)
async def test_a_cancelled_wait_ends_cancelled_and_undoes_what_nobody_took(steps: int) -> None:
    came = asyncio.Event()
    made: list[str] = []
    undone: list[str] = []

    async def work() -> str:
        await came.wait()
        made.append("a slot")
        return "a slot"

    waiting = asyncio.create_task(within(60, work(), undo=undone.append))
    await turns(3)
    came.set()
    await turns(steps)
    if waiting.done():
        assert waiting.result() == "a slot"
        assert undone == []
        return
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert undone == made


async def test_work_that_takes_too_long_is_cancelled_and_has_ended() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await turns(3)
            ended.set()

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, work())
    assert ended.is_set()


async def test_who_is_cancelled_while_late_work_ends_is_cancelled() -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ending.set()
            await may_end.wait()

    waiting = asyncio.create_task(within(0.01, work()))
    await ending.wait()
    waiting.cancel()
    await turns(3)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_error_of_the_work_is_the_waiters() -> None:
    async def work() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        await within(60, work())
