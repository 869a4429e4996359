"""SIGKILL at a random moment of an update: afterwards the board serves the old release or the new one, whole."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.store import Space, Store
from tests.agent.agent_process import serving
from tests.agent.artifacts import TIMEOUT_SECONDS, TREE, TestArtifact, activate, make_artifact, push
from tests.agent.test_agent_process import generated_soon, insecure, trusted

__all__ = ["trusted"]  # the fixture

ROUNDS = 8


def versions() -> list[TestArtifact]:
    """Releases that share most of their bytes."""
    weights = random.Random(7).randbytes(3_000_000)
    trees = [
        {**TREE, "engine/model.bin": weights[:-4] + number.to_bytes(4, "big"), "engine/fake.json": b"{}"}
        for number in range(ROUNDS + 1)
    ]
    return [
        make_artifact(tree, version=f"{number}.0", chunk_bytes=65_536) for number, tree in enumerate(trees)
    ]


async def update(address: str, artifact: TestArtifact) -> None:
    """Push and activate; the agent may die on the way."""
    async with grpc.aio.insecure_channel(address) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await activate(channel, await push(channel, artifact))


async def active_release(address: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=TIMEOUT_SECONDS)
        steps = [step async for step in watch]  # ends when the board is at rest
        assert len(await generated_soon(channel)) == 8
        return steps[-1].active_release.hex()


@pytest.mark.crash
@pytest.mark.timeout(300)
async def test_a_kill_at_any_moment_of_an_update_leaves_the_old_or_the_new_release(
    tmp_path: Path, trusted: Path
) -> None:
    store, (first, *others), chance = tmp_path / "store", versions(), random.Random(11)
    with serving(store, *insecure(trusted)) as agent:
        began = time.monotonic()
        await update(agent.address, first)
        cycle_seconds = time.monotonic() - began
    allowed = {first.digest}
    for artifact in others:
        with serving(store, *insecure(trusted)) as agent:
            active = await active_release(agent.address)
            assert active in allowed
            allowed = {active, artifact.digest}
            updating = asyncio.create_task(update(agent.address, artifact))
            await asyncio.sleep(chance.uniform(0, 1.1 * cycle_seconds))
            agent.process.send_signal(signal.SIGKILL)
            await updating
        check_whole(store)


def check_whole(root: Path) -> None:
    """Every release that the store shows is whole, byte for byte."""
    store = Store(root, space=Space(reserve_bytes=0))
    try:
        for release in store.releases().values():
            store.verify(release.manifest)
    finally:
        store.close()
    assert list((root / "quarantine").iterdir()) == []
