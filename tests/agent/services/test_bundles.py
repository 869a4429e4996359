"""Items that are here together travel together, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import BusyError
from edgewright_agent.services import coalescing
from edgewright_agent.services.coalescing import UNREAD_MAX, coalesced


async def numbers(pauses: list[float]) -> AsyncGenerator[int, None]:
    for number, pause in enumerate(pauses):
        await asyncio.sleep(pause)
        yield number


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.001]), max_size=20))
def test_nothing_is_lost_or_reordered_and_no_bundle_is_empty(pauses: list[float]) -> None:
    async def collect() -> list[list[int]]:
        return [bundle async for bundle in coalesced(numbers(pauses))]

    bundles = asyncio.run(collect())
    assert [number for bundle in bundles for number in bundle] == list(range(len(pauses)))
    assert all(bundles)


async def test_what_is_here_travels_together_and_what_comes_later_alone() -> None:
    async def two_then_one() -> AsyncGenerator[int, None]:
        yield 0
        yield 1
        await asyncio.sleep(0.05)
        yield 2

    assert [bundle async for bundle in coalesced(two_then_one())] == [[0, 1], [2]]


async def test_an_error_comes_after_what_came_before_it() -> None:
    async def failing() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.sleep(0)
        yield 2
        raise ValueError("gone")

    bundles, got = coalesced(failing()), list[int]()
    while len(got) < 2:
        got += await anext(bundles)
    assert got == [1, 2]
    with pytest.raises(ValueError, match="gone"):
        await anext(bundles)


async def test_leaving_closes_the_items_at_once() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    bundles = coalesced(endless())
    await anext(bundles)
    await bundles.aclose()
    assert closed.is_set()


async def test_a_client_that_does_not_read_stops_the_items_until_it_does() -> None:
    made: list[int] = []

    async def many() -> AsyncGenerator[int, None]:
        for number in range(10 * UNREAD_MAX):
            made.append(number)
            yield number

    bundles = coalesced(many())
    got = await anext(bundles)
    for _ in range(20 * UNREAD_MAX):
        await asyncio.sleep(0)
    assert len(made) <= len(got) + UNREAD_MAX
    async for bundle in bundles:
        got += bundle
    assert got == made == list(range(10 * UNREAD_MAX))


async def test_a_client_that_reads_nothing_for_too_long_frees_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coalescing, "STALL_SECONDS", 0.01)
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    bundles = coalesced(endless())
    await anext(bundles)
    await asyncio.wait_for(closed.wait(), 20)
    assert len(await anext(bundles)) == UNREAD_MAX
    with pytest.raises(BusyError, match="Nothing of the answer was read"):
        await anext(bundles)
