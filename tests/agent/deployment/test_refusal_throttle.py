"""Who has refused requests again and again waits between them; who makes a mistake now and then does not."""

from __future__ import annotations

import pytest

from edgewright.errors import BusyError
from edgewright_agent.deployment.refusal_throttle import (
    CLIENTS_KEPT,
    FREE_SECONDS,
    PAUSE_SECONDS_MAX,
    QUICK_SECONDS,
    SHARE,
    Refusals,
)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock) -> Refusals:
    return Refusals(clock)


def test_a_few_refusals_cost_no_wait(refusals: Refusals) -> None:
    for _ in range(5):
        refusals.note("a client", FREE_SECONDS / 10)
    assert refusals.pause_seconds("a client") == 0


def test_what_is_refused_at_once_may_be_sent_for_ever(refusals: Refusals) -> None:
    for _ in range(10_000):
        refusals.note("a client", QUICK_SECONDS)
    assert refusals.pause_seconds("a client") == 0


def test_refusals_take_a_small_share_of_the_engine_in_the_long_run(refusals: Refusals, clock: Clock) -> None:
    cost_seconds, end = 0.0, 3600.0
    while clock.seconds < end:
        clock.seconds += refusals.pause_seconds("a client") + 0.15
        refusals.note("a client", 0.15)
        cost_seconds += 0.15
    assert cost_seconds <= FREE_SECONDS + 1.05 * SHARE * end


async def test_who_would_wait_too_long_is_told_when_to_come_back(refusals: Refusals, clock: Clock) -> None:
    refusals.note("a client", FREE_SECONDS + 1)
    with pytest.raises(BusyError, match="try again in 20 s") as refused:
        await refusals.wait("a client")
    assert refused.value.retry_seconds == 20
    clock.seconds += refused.value.retry_seconds
    await refusals.wait("a client")


async def test_one_client_does_not_pay_for_another(refusals: Refusals) -> None:
    refusals.note("a hostile client", FREE_SECONDS + SHARE * PAUSE_SECONDS_MAX + 1)
    await refusals.wait("a client")


def test_a_crowd_of_names_is_not_remembered_for_ever(refusals: Refusals) -> None:
    for index in range(10 * CLIENTS_KEPT):
        refusals.note(f"client {index}", 1.0)
    assert len(refusals._debts) == CLIENTS_KEPT
