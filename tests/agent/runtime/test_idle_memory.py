"""Memory that work needed is given back once the work has ended, and not before; a resting agent is left alone."""

from __future__ import annotations

import asyncio

from edgewright_agent.runtime.idle_memory import giving_back

SHORT_SECONDS = 0.01


async def test_it_is_given_back_once_after_each_work() -> None:
    work, looked, given = [0], [0], [0]

    def activity() -> int:
        looked[0] += 1
        return work[0]

    def give_back() -> None:
        given[0] += 1

    async with giving_back(activity, give_back, SHORT_SECONDS):
        while looked[0] <= 5:
            await asyncio.sleep(SHORT_SECONDS)
        assert given == [0]
        for times in (1, 2):
            work[0] += 1
            while given[0] < times:
                await asyncio.sleep(SHORT_SECONDS)
            seen = looked[0]
            while looked[0] <= seen + 3:
                await asyncio.sleep(SHORT_SECONDS)
            assert given == [times]


async def test_nothing_is_given_back_while_work_goes_on() -> None:
    given, looked = [0], [0]

    def activity() -> int:
        looked[0] += 1
        return looked[0]  # something new each time

    def give_back() -> None:
        given[0] += 1

    async with giving_back(activity, give_back, SHORT_SECONDS):
        while looked[0] <= 10:
            await asyncio.sleep(SHORT_SECONDS)
    assert given == [0]
