"""The engine's slots are shared among clients: one that asks for much waits for itself, not the others for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from edgewright.errors import BusyError
from edgewright_agent.deployment.fair_request_slots import KEPT_SECONDS, WAITING_PER_SLOT, RequestSlots

LONG_SECONDS = 600.0


class Crowd:
    """Requests of clients, each of which holds its slot until it is told to leave."""

    def __init__(self, slots: int, kept_seconds: float = KEPT_SECONDS) -> None:
        self.slots = RequestSlots(slots, kept_seconds=kept_seconds)
        self.tasks: list[asyncio.Task[None]] = []
        self.held: list[str] = []  # clients that hold a slot, one entry for each
        self.refused: list[str] = []
        self._leave: dict[str, list[asyncio.Event]] = {}

    async def ask(self, client: str, times: int = 1, *, patient: bool = False) -> None:
        for _ in range(times):
            self.tasks.append(asyncio.create_task(self._request(client, patient=patient)))
            await turns()

    async def leave(self, client: str) -> None:
        """Ends the client's oldest request."""
        self._leave[client].pop(0).set()
        await turns()

    async def _request(self, client: str, *, patient: bool) -> None:
        leave = asyncio.Event()
        try:
            async with self.slots.admit(client, patient=patient):
                self.held.append(client)
                self._leave.setdefault(client, []).append(leave)
                try:
                    await leave.wait()
                finally:
                    self.held.remove(client)
        except BusyError:
            self.refused.append(client)


@pytest.fixture
async def crowd_of() -> AsyncIterator[Callable[..., Crowd]]:
    crowds: list[Crowd] = []

    def make(slots: int, **options: float) -> Crowd:
        crowds.append(Crowd(slots, **options))
        return crowds[-1]

    yield make
    tasks = [task for crowd in crowds for task in crowd.tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_client_alone_may_have_every_slot(crowd_of: Callable[..., Crowd]) -> None:
    crowd = crowd_of(8)
    await crowd.ask("greedy", 20)
    assert crowd.held == ["greedy"] * 8


async def test_the_next_free_slot_is_of_the_client_that_holds_the_fewest(
    crowd_of: Callable[..., Crowd],
) -> None:
    crowd = crowd_of(4)
    await crowd.ask("greedy", 12)
    await crowd.ask("good")
    await crowd.ask("other")
    await crowd.leave("greedy")
    assert sorted(crowd.held) == ["good", "greedy", "greedy", "greedy"]
    await crowd.leave("greedy")
    assert sorted(crowd.held) == ["good", "greedy", "greedy", "other"]


async def test_a_client_that_comes_back_finds_its_slot_again(crowd_of: Callable[..., Crowd]) -> None:
    crowd = crowd_of(4, kept_seconds=LONG_SECONDS)
    await crowd.ask("greedy", 12)
    await crowd.ask("good")
    await crowd.leave("greedy")
    for _ in range(5):
        await crowd.leave("good")
        assert crowd.held == ["greedy"] * 3  # though many of its requests wait
        await crowd.ask("good")
        assert sorted(crowd.held) == ["good", "greedy", "greedy", "greedy"]


async def test_a_slot_is_kept_for_a_moment_only(crowd_of: Callable[..., Crowd]) -> None:
    crowd = crowd_of(2, kept_seconds=0.01)
    await crowd.ask("greedy", 3)
    await crowd.ask("good")
    await crowd.leave("greedy")
    await crowd.leave("good")
    while len(crowd.held) < 2:
        await asyncio.sleep(0.005)
    assert crowd.held == ["greedy"] * 2


async def test_a_full_queue_makes_room_for_who_has_less_in_it(crowd_of: Callable[..., Crowd]) -> None:
    crowd = crowd_of(2)
    await crowd.ask("greedy", 2 + 2 * WAITING_PER_SLOT)
    assert not crowd.refused
    await crowd.ask("good")
    assert crowd.refused == ["greedy"]
    await crowd.ask("greedy")
    assert crowd.refused == ["greedy"] * 2
    await crowd.leave("greedy")
    assert "good" in crowd.held


async def test_a_measurement_of_our_own_takes_nobodys_place_in_the_queue(
    crowd_of: Callable[..., Crowd],
) -> None:
    crowd = crowd_of(1)
    await crowd.ask("this agent", 64, patient=True)
    await crowd.ask("good", 8)
    assert not crowd.refused
    await crowd.leave("this agent")
    assert crowd.held == ["good"]


async def test_many_clients_are_all_served_and_nothing_is_left_over(crowd_of: Callable[..., Crowd]) -> None:
    crowd = crowd_of(3)
    for index in range(11):
        await crowd.ask(f"client {index % 4}")
    for _ in range(11):
        await crowd.leave(crowd.held[0])
    assert not crowd.held
    assert not crowd.refused
    await asyncio.wait_for(crowd.slots.drain(5), 1)


@pytest.mark.parametrize("slots", [1, 2, 8])
async def test_slots_are_never_more_than_there_are(slots: int, crowd_of: Callable[..., Crowd]) -> None:
    crowd = crowd_of(slots)
    for index in range(4 * slots):
        await crowd.ask("ab"[index % 2])
        assert len(crowd.held) <= slots


async def test_clients_with_one_request_each_take_turns_with_one_that_has_many(
    crowd_of: Callable[..., Crowd],
) -> None:
    crowd, served = crowd_of(1), []
    await crowd.ask("greedy", 8)
    for _ in range(6):
        await crowd.ask("good")
        served += crowd.held
        await crowd.leave(crowd.held[0])
    assert served == ["greedy", "good"] * 3
