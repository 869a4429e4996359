"""A push ends with the board's verdict whatever the link does, and sends little twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright.trust.keys import load_public_key
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push.push import PushResult, push
from edgewright_builder.push.transfer import TransferListener
from tests.agent.conftest import settings_for
from tests.support.bad_link import Link, bad_link
from tests.support.built_artifacts import make_artifact
from tests.support.scripted_engine import Script, only_fake

MIB = 1024 * 1024
WINDOW_BYTES = 64 * MIB  # what the agent may not have made durable yet


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder)
    return folder


@dataclass
class Road:
    """A host, a link and a board."""

    agent: RunningAgent
    link: Link
    client: DeviceClient
    folder: Path
    credentials: Path

    def artifact(self, size_bytes: int) -> Artifact:
        key = load_signing_key(self.credentials / "release.key")
        contents = {"engine/model.bin": random.Random(1).randbytes(size_bytes)}
        return make_artifact(self.folder / "artifact", contents, key, device_profiles=("raspberry-pi-5-8gb",))

    async def push(self, artifact: Artifact, **options: object) -> PushResult:
        result = await push(self.client, artifact.folder, None, **options)  # type: ignore[arg-type]
        assert result.verdict is not None
        assert result.verdict.committed
        return result


@contextlib.asynccontextmanager
async def open_road(folder: Path, credentials: Path) -> AsyncIterator[Road]:
    link = Link()
    settings = settings_for(folder / "store", trusted_keys=(load_public_key(credentials / "release.pub"),))
    async with (
        run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent,
        bad_link(agent.address, link) as address,
        DeviceClient(address, None) as client,
    ):
        yield Road(agent, link, client, folder, credentials)


@pytest.fixture
async def road(tmp_path: Path, credentials: Path) -> AsyncIterator[Road]:
    async with open_road(tmp_path, credentials) as road:
        yield road


async def test_a_link_with_200_ms_of_delay(road: Road) -> None:
    road.link.delay_seconds = 0.2
    artifact = road.artifact(MIB)
    result = await road.push(artifact)
    assert (result.sent_bytes, result.resumptions) == (MIB, 0)


async def test_a_link_of_one_megabyte_per_second(road: Road) -> None:
    road.link.bytes_per_second = 1e6
    rates: list[float] = []
    listener = TransferListener(sent=lambda sent: rates.append(sent.bytes_per_second))
    result = await road.push(road.artifact(2 * MIB), listener=listener)
    assert (result.sent_bytes, result.resumptions) == (2 * MIB, 0)
    assert rates


@pytest.mark.parametrize("politely", [False, True], ids=["reset", "truncated"])
async def test_a_link_that_breaks_every_3_mb_inside_chunks_of_4_mib(road: Road, politely: bool) -> None:
    road.link.ends_after_bytes, road.link.ends_politely = 3_000_000, politely
    result = await road.push(road.artifact(12 * MIB))
    assert result.resumptions >= 4
    assert road.link.forwarded_bytes <= 3 * 12 * MIB  # what was on its way when the link broke is lost


async def test_a_link_that_breaks_many_times_in_every_chunk_gets_on(road: Road) -> None:
    road.link.ends_after_bytes = 1_000_000
    result = await road.push(road.artifact(4 * MIB))
    assert result.resumptions >= 5


async def test_a_link_that_is_silent_for_a_while_and_comes_back(road: Road) -> None:
    road.link.bytes_per_second = 4e6
    pushing = asyncio.create_task(road.push(road.artifact(4 * MIB)))
    await until(lambda: road.link.forwarded_bytes > MIB)
    road.link.silent = True
    await asyncio.sleep(1.0)
    road.link.silent = False
    result = await pushing
    assert (result.sent_bytes, result.resumptions) == (4 * MIB, 0)


async def test_a_link_that_is_down_for_seconds(road: Road) -> None:
    await cut_for(road, 1.0, 4 * MIB)


@pytest.mark.slow
async def test_a_link_that_is_down_for_a_minute(road: Road) -> None:
    await cut_for(road, 60.0, 64 * MIB)


async def cut_for(road: Road, seconds: float, size_bytes: int) -> None:
    """Half-way every connection is reset, and each new one too until the link is up again."""
    road.link.bytes_per_second = size_bytes / 2
    artifact = road.artifact(size_bytes)
    pushing = asyncio.create_task(road.push(artifact))
    await until(lambda: road.link.forwarded_bytes > size_bytes // 2)
    road.link.ends_after_bytes = 0
    road.link.cut()
    await asyncio.sleep(seconds)
    road.link.ends_after_bytes = None
    result = await pushing
    assert result.resumptions >= 1
    assert result.sent_bytes - size_bytes <= WINDOW_BYTES
    assert road.link.forwarded_bytes <= size_bytes + 4 * MIB


@pytest.mark.slow
async def test_a_connection_that_falls_silent_for_ever_is_given_up_and_replaced(road: Road) -> None:
    """Only the keepalive, 40 s, can tell; the agent may still hold the old stream, and says BUSY meanwhile."""
    road.link.bytes_per_second = 8e6
    pushing = asyncio.create_task(road.push(road.artifact(32 * MIB)))
    await until(lambda: road.link.forwarded_bytes > 8 * MIB)
    road.link.forget()
    result = await pushing
    assert result.resumptions >= 1
    assert road.link.connections >= 2


@pytest.mark.slow
async def test_all_of_it_at_once_with_64_mib(road: Road) -> None:
    road.link.delay_seconds, road.link.ends_after_bytes = 0.2, 6_000_000
    result = await road.push(road.artifact(64 * MIB), patience_seconds=300.0)
    assert result.resumptions >= 10
    assert road.link.forwarded_bytes <= 64 * MIB + (result.resumptions + 1) * 4 * MIB


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)
