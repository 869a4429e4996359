"""What happens at once on one board: two pushes, a push and an activation, a push and the garbage collector.

Each also with the agent killed and started again in the middle. Whatever the order, every push ends committed or is
told that another change was under way, nothing is lost, and the board serves one of the releases, whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import BusyError
from edgewright_agent.store import Space, Store
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push import transfer
from edgewright_builder.push.push import PushResult, push
from edgewright_builder.push.transfer import TransferListener
from tests.builder.device_client.test_agent import agent_process
from tests.support.built_artifacts import make_artifact

MIB = 1024 * 1024
MODEL_BYTES = 6 * MIB


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder)
    return folder


@pytest.fixture(autouse=True)
def _every_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TELL_SECONDS", 0.0)  # the whole model travels faster than two words follow


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, credentials: Path) -> list[Artifact]:
    """Three versions that share nothing, for any engine that pretends."""
    folder, key = tmp_path_factory.mktemp("artifacts"), load_signing_key(credentials / "release.key")
    return [
        make_artifact(
            folder / str(number),
            {"engine/model.bin": random.Random(number).randbytes(MODEL_BYTES), "engine/fake.json": b"{}"},
            key,
            version=f"{number}.0",
        )
        for number in range(3)
    ]


class Board:
    """A real agent process that can be killed and comes back on the same port, over the same store."""

    def __init__(self, store: Path, credentials: Path) -> None:
        self.store = store
        self._credentials = credentials
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> None:
        context = agent_process(self.store, self._credentials, self.port)
        self._process, self.port = self._running.enter_context(context)

    def stop(self) -> None:
        self._running.close()

    async def kill_and_start(self) -> None:
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)


@pytest.fixture
async def board(tmp_path: Path, credentials: Path) -> AsyncIterator[Board]:
    board = Board(tmp_path / "store", credentials)
    board.start()
    try:
        yield board
    finally:
        board.stop()


@contextlib.asynccontextmanager
async def clients(board: Board, credentials: Path) -> AsyncIterator[tuple[DeviceClient, DeviceClient]]:
    """Two hosts."""
    address = parse_address(f"localhost:{board.port}")
    async with DeviceClient(address, credentials) as first, DeviceClient(address, credentials) as second:
        yield first, second


async def committed_or_busy(pushing: Awaitable[PushResult]) -> PushResult | None:
    """What a push may end with; None if another change was under way when it wanted to activate."""
    try:
        result = await pushing
    except BusyError:
        return None
    assert result.verdict is None or result.verdict.committed
    return result


def half_way() -> tuple[TransferListener, asyncio.Event]:
    """A listener, and an event for when half of it is sent."""
    event = asyncio.Event()
    return TransferListener(sent=lambda sent: event.set() if sent.bytes >= MODEL_BYTES // 2 else None), event


async def reached(half: asyncio.Event, *pushes: asyncio.Task[Any]) -> None:
    """Until half of it is sent; or a push has ended, which then says how by itself."""
    waiting = asyncio.create_task(half.wait())
    await asyncio.wait([waiting, *pushes], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def check_whole(board: Board, client: DeviceClient, expected: set[str]) -> None:
    """The board serves one of these releases, and every release on it is whole."""
    while True:
        with contextlib.suppress(LinkError):
            steps = [step async for step in client.watch_deployment()]  # ends when the board is at rest
            break
    assert steps[-1].active_release.hex() in expected
    board.stop()
    store = Store(board.store, space=Space(reserve_bytes=0))
    try:
        for release in store.releases().values():
            store.verify(release.manifest)
    finally:
        store.close()
    assert list((board.store / "quarantine").iterdir()) == []
    assert list((board.store / "partial").iterdir()) == []


Race = Callable[[Board, DeviceClient, DeviceClient, list[Artifact], bool], Awaitable[set[str]]]


async def same_artifact_twice(
    board: Board, first: DeviceClient, second: DeviceClient, artifacts: list[Artifact], kill: bool
) -> set[str]:
    listener, half = half_way()
    pushes = [
        asyncio.create_task(committed_or_busy(push(client, artifacts[0].folder, None, listener=listener)))
        for client in (first, second)
    ]
    await reached(half, *pushes)
    if kill:
        await board.kill_and_start()
    results = await asyncio.gather(*pushes)
    assert any(results)
    return {artifacts[0].digest}


async def two_artifacts(
    board: Board, first: DeviceClient, second: DeviceClient, artifacts: list[Artifact], kill: bool
) -> set[str]:
    listener, half = half_way()
    pushes = [
        asyncio.create_task(committed_or_busy(push(client, artifact.folder, None, listener=listener)))
        for client, artifact in zip((first, second), artifacts, strict=False)
    ]
    await reached(half, *pushes)
    if kill:
        await board.kill_and_start()
    assert any(await asyncio.gather(*pushes))
    assert len(await first.list_releases()) == 2  # the one that was told to wait is staged all the same
    return {artifacts[0].digest, artifacts[1].digest}


async def push_during_activation(
    board: Board, first: DeviceClient, second: DeviceClient, artifacts: list[Artifact], kill: bool
) -> set[str]:
    await push(first, artifacts[0].folder, None)
    await push(first, artifacts[1].folder, None, activate=False)
    listener, half = half_way()
    pushing = asyncio.create_task(push(second, artifacts[2].folder, None, activate=False, listener=listener))
    await reached(half, pushing)
    activating = asyncio.create_task(push(first, artifacts[1].folder, None))
    if kill:
        await asyncio.sleep(0.05)
        await board.kill_and_start()
    result, staged = await asyncio.gather(activating, pushing)
    assert result.verdict is not None
    assert result.verdict.committed
    assert {release.release.hex() for release in await first.list_releases()} >= {staged.release}
    return {artifacts[1].digest}


async def garbage_collected_during_a_push(
    board: Board, first: DeviceClient, second: DeviceClient, artifacts: list[Artifact], kill: bool
) -> set[str]:
    listener, half = half_way()
    pushing = asyncio.create_task(push(first, artifacts[0].folder, None, listener=listener))

    async def collect() -> None:
        while True:
            with contextlib.suppress(LinkError):
                await second.collect_garbage(quarantine=True)

    collecting = asyncio.create_task(collect())
    await reached(half, pushing)
    if kill:
        await board.kill_and_start()
    result = await pushing
    collecting.cancel()
    assert result.verdict is not None
    assert result.verdict.committed
    if not kill:
        assert result.sent_bytes == result.plan.missing_bytes  # nothing was taken away under it
    return {artifacts[0].digest}


RACES = [same_artifact_twice, two_artifacts, push_during_activation, garbage_collected_during_a_push]


@pytest.mark.parametrize(
    "kill", [pytest.param(False, id=""), pytest.param(True, id="agent-killed", marks=pytest.mark.crash)]
)
@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__.replace("_", "-"))
async def test_after_any_race_the_board_serves_one_of_the_releases_and_the_store_is_whole(
    board: Board, credentials: Path, artifacts: list[Artifact], race: Race, kill: bool
) -> None:
    async with clients(board, credentials) as (first, second):
        expected = await race(board, first, second, artifacts, kill)
        await check_whole(board, first, expected)
