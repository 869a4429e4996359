"""A real agent SIGKILLed at random moments of an update: afterwards the old release or the new one serves, whole.

The moments are spread over the measured duration of a whole cycle: upload, staging, activation, probation, commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.deployment import activation_rules
from edgewright_agent.engine_worker.model.fake import fake_tokens
from edgewright_agent.store import Space, Store
from tests.agent.test_agent_process import generated_soon, insecure, trusted
from tests.support.agent_process import AgentProcess, serving
from tests.support.artifacts import TIMEOUT_SECONDS, TestArtifact, make_artifact, push

__all__ = ["trusted"]  # the fixture

SEED = 11
KILLS_IN_A_ROW = activation_rules.STARTS_MAX // 2
LATEST = 1.1  # of a cycle: some kills come after it
MODEL_BYTES = 4 * 2**20
PROBATION_SECONDS = 0.5
PEAKS_MIB = {"warm": 100, "cold": 600}  # predicted; two of the latter are over the budget
BUDGET = "1GiB"
PHASES = {
    deployment_pb2.PHASE_ACTIVATING: "activating",
    deployment_pb2.PHASE_PROBATION: "probation",
    deployment_pb2.PHASE_IDLE: "afterwards",
}


def release(number: int, peak_mib: int) -> TestArtifact:
    """Shares nothing with the others, and says other words."""
    salt = str(number)
    tree = {
        "engine/model.bin": random.Random(number).randbytes(MODEL_BYTES),
        "engine/fake.json": json.dumps({"salt": salt}).encode(),
    }
    memory = {
        "budget_bytes": 2**30, "predicted_peak_bytes": peak_mib * 2**20, "error_bytes": 1024,
        "calibrated_on": "tests",
    }  # fmt: skip
    golden = {"prompt": "hello", "tokens": list(islice(fake_tokens(list(b"hello"), salt), 8))}
    return make_artifact(tree, version=f"{number}.0", chunk_bytes=65_536, memory=memory, golden=golden)


@dataclass
class Lane:
    """One board that is updated and killed, again and again."""

    swap: str
    store: Path
    options: tuple[str, ...]
    step: str = ""  # of the update under way
    kills: Counter[str] = field(default_factory=Counter)  # by the step they came in

    def release(self, number: int) -> TestArtifact:
        return release(number, PEAKS_MIB[self.swap])

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[AgentProcess]:
        """Beside the other lanes."""
        context = serving(self.store, *self.options)
        agent = await asyncio.to_thread(context.__enter__)
        try:
            yield agent
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)

    async def update(self, address: str, artifact: TestArtifact) -> None:
        """Push and activate, as far as the agent lives."""
        async with grpc.aio.insecure_channel(address) as channel:
            with contextlib.suppress(grpc.aio.AioRpcError):
                self.step = "upload and staging"
                digest = await push(channel, artifact)
                self.step = "activating"
                stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
                request = deployment_pb2.ActivateReleaseRequest(release=digest)
                await stub.ActivateRelease(request, timeout=TIMEOUT_SECONDS)
                watch = deployment_pb2.WatchDeploymentRequest()
                async for status in stub.WatchDeployment(watch, timeout=TIMEOUT_SECONDS):
                    self.step = PHASES[status.phase]

    async def measured_cycle(self, artifact: TestArtifact) -> float:
        async with self.agent() as agent:
            began = time.monotonic()
            await self.update(agent.address, artifact)
            assert self.step == "afterwards"
            return time.monotonic() - began

    async def stopped_cleanly(self, artifacts: dict[str, TestArtifact]) -> None:
        """So that its many short lives are not held against the release; see `activation_rules.starting`."""
        async with self.agent() as agent:
            await serves(agent.address, artifacts)
            agent.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(agent.process.wait, TIMEOUT_SECONDS) == 0

    async def killed(self, after_seconds: float, artifacts: dict[str, TestArtifact]) -> str:
        """Checks what serves, then updates to the last of `artifacts` and kills; returns what served."""
        async with self.agent() as agent:
            active = await serves(agent.address, artifacts)
            await forget_others(agent.address, active)
            updating = asyncio.create_task(self.update(agent.address, list(artifacts.values())[-1]))
            await asyncio.sleep(after_seconds)
            self.kills[self.step] += 1
            agent.process.send_signal(signal.SIGKILL)
            await updating
        await asyncio.to_thread(check_whole, self.store)
        return active


async def serves(address: str, allowed: dict[str, TestArtifact]) -> str:
    """The release that says its own words; AssertionError if it is none of these."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=TIMEOUT_SECONDS)
        steps = [step async for step in watch]  # ends when the board is at rest
        active = steps[-1].active_release.hex()
        assert active in allowed
        golden = allowed[active].manifest.golden
        assert golden is not None
        assert tuple(await generated_soon(channel)) == golden.tokens
        return active


async def forget_others(address: str, active: str) -> None:
    """So that the store stays small."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        listed = await stub.ListReleases(deployment_pb2.ListReleasesRequest(), timeout=TIMEOUT_SECONDS)
        for each in listed.releases:
            with contextlib.suppress(grpc.aio.AioRpcError):  # the previous one stays
                request = deployment_pb2.DeleteReleaseRequest(release=each.release)
                await stub.DeleteRelease(request, timeout=TIMEOUT_SECONDS)


def check_whole(root: Path) -> None:
    """Every release that the store shows is whole, byte for byte."""
    store = Store(root, space=Space(reserve_bytes=0))
    try:
        for staged in store.releases().values():
            store.verify(staged.manifest)
    finally:
        store.close()
    assert list((root / "quarantine").iterdir()) == []


async def kill_again_and_again(lane: Lane, kills: int, seed: int) -> None:
    chance, first = random.Random(f"{seed} {lane.swap}"), lane.release(0)
    cycle_seconds = await lane.measured_cycle(first)
    shares = [LATEST * (number + chance.random()) / kills for number in range(kills)]
    chance.shuffle(shares)
    allowed = {first.digest: first}
    for number, share in enumerate(shares, 1):
        artifact = lane.release(number)
        allowed[artifact.digest] = artifact
        where = f"{lane.swap} swap, kill {number} at {share:.3f} of {cycle_seconds:.2f} s, seed {seed}"
        try:
            active = await lane.killed(share * cycle_seconds, allowed)
        except Exception as error:
            raise AssertionError(f"before {where}") from error
        allowed = {active: allowed[active], artifact.digest: artifact}
        if number % KILLS_IN_A_ROW == 0:
            await lane.stopped_cleanly(allowed)
    async with lane.agent() as agent:
        await serves(agent.address, allowed)


async def kill_boards(tmp_path: Path, trusted: Path, kills: int, seed: int = SEED) -> Counter[str]:
    """Two boards at once, one for each way to swap engines; how many kills came in which step."""
    options = (*insecure(trusted), "--probation", str(PROBATION_SECONDS), "--budget", BUDGET)
    lanes = [Lane(swap, tmp_path / swap, options) for swap in PEAKS_MIB]
    begun = time.monotonic()
    shares = (kills // 2, kills - kills // 2)
    await asyncio.gather(*map(kill_again_and_again, lanes, shares, (seed, seed)))
    counts = sum((lane.kills for lane in lanes), Counter[str]())
    told = ", ".join(f"{count} in {step}" for step, count in sorted(counts.items()))
    sys.stdout.write(f"{kills} kills in {time.monotonic() - begun:.0f} s: {told}\n")
    return counts


@pytest.mark.timeout(400)
async def test_a_kill_at_any_moment_of_an_update_leaves_the_old_or_the_new_release(
    tmp_path: Path, trusted: Path
) -> None:
    counts = await kill_boards(tmp_path, trusted, 25)
    assert counts.total() == 25


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("third", range(3))  # each is short enough for one sitting
async def test_three_hundred_kills_do_too(third: int, tmp_path: Path, trusted: Path) -> None:
    counts = await kill_boards(tmp_path, trusted, 100, SEED + third)
    assert counts.total() == 100
    assert set(counts) >= {"upload and staging", "activating", "probation", "afterwards"}
