"""What a board records while nobody listens reaches a host that comes later: each entry once, whatever the link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.telemetry_feeds import ObservationSettings
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.device_client.telemetry_record import recorded
from tests.agent.conftest import settings_for
from tests.support.bad_link import Link, bad_link
from tests.support.scripted_engine import Script, only_fake


@asynccontextmanager
async def board(store: Path, **observation: Any) -> AsyncIterator[RunningAgent]:
    settings = settings_for(store, observation=ObservationSettings(**observation))
    async with run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent:
        yield agent


def fill(agent: RunningAgent, entries: int) -> None:
    for _ in range(entries):
        agent.observation.recorder.record()


def kept(agent: RunningAgent) -> list[int]:
    return [sequence for sequence, _ in agent.observation.recorder.recorded(0)]


def impatient() -> Patience:
    return Patience(5.0, base_seconds=0.01, cap_seconds=0.05)


async def test_every_entry_arrives_once_over_a_link_that_keeps_breaking(tmp_path: Path) -> None:
    link = Link()
    async with (
        board(tmp_path / "store", record_seconds=3600.0) as agent,
        bad_link(agent.address, link) as address,
        DeviceClient(address, None) as client,
    ):
        fill(agent, 600)
        arrived = []
        async for sequence, snapshot in recorded(client, 0, impatient()):
            assert snapshot.unix_seconds
            arrived.append(sequence)
            if len(arrived) % 100 == 50:
                link.cut()
                await asyncio.sleep(0.01)  # the end of the connection arrives
        assert arrived == kept(agent)
        assert link.connections > 3
    assert arrived == list(range(arrived[0], arrived[0] + len(arrived)))
    assert len(arrived) >= 600


async def test_what_was_recorded_before_and_after_a_restart_is_one_record(tmp_path: Path) -> None:
    for _ in range(2):
        async with board(tmp_path / "store", record_seconds=3600.0) as agent:
            fill(agent, 20)
    async with (
        board(tmp_path / "store", record_seconds=3600.0) as agent,
        DeviceClient(agent.address, None) as client,
    ):
        fill(agent, 20)
        arrived = [sequence async for sequence, _ in recorded(client, 0, impatient())]
        assert arrived == list(range(arrived[0], agent.observation.recorder.last_sequence + 1))
        assert len(arrived) >= 60
        rest = [sequence async for sequence, _ in recorded(client, arrived[-3], impatient())]
    assert rest == arrived[-2:]


async def test_a_full_record_drops_the_oldest_and_its_numbers_tell(tmp_path: Path) -> None:
    async with (
        board(tmp_path / "store", record_seconds=3600.0, history_bytes=64 * 1024) as agent,
        DeviceClient(agent.address, None) as client,
    ):
        fill(agent, 1)
        first = kept(agent)[0]
        fill(agent, 250)
        arrived = [sequence async for sequence, _ in recorded(client, 0, impatient())]
        last = agent.observation.recorder.last_sequence
    assert arrived[0] > first
    assert arrived == list(range(arrived[0], last + 1))


async def test_a_board_that_stays_away_is_given_up_with_what_went_wrong(tmp_path: Path) -> None:
    link = Link()
    async with (
        board(tmp_path / "store", record_seconds=3600.0) as agent,
        bad_link(agent.address, link) as address,
        DeviceClient(address, None) as client,
    ):
        fill(agent, 3)
    patience = Patience(0.1, base_seconds=0.01, cap_seconds=0.02)
    with pytest.raises(LinkError):
        async with DeviceClient(address, None) as client:
            _ = [entry async for entry in recorded(client, 0, patience)]
