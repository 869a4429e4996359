"""What a board makes of a release before its engine can start: shown, bounded, whole or not at all, gone with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest

from edgewright.errors import EdgewrightError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.deployment.state import Phase
from edgewright_agent.engines.edge_llm.wheel import COMMAND_VARIABLE
from edgewright_agent.engines.process import memory_limit
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.store import Store
from tests.agent.conftest import settings_for
from tests.support.artifacts import TIMEOUT_SECONDS, TestArtifact, make_artifact, push
from tests.support.edge_llm_stub.install import install_edge_llm
from tests.support.gates import gate

__all__ = ["gate"]  # the fixture

ENGINE = {"kind": "tensorrt-edge-llm"}
CONFIG = {"model_type": "llama", "eos_token_id": 2}
TOKENIZER = {
    "engine/tokenizer.json": b'{"version": "1.0"}',
    "tokenizer/tokenizer.json": b'{"version": "1.0"}',
}
WAIT_SECONDS = 90.0
pytestmark = pytest.mark.timeout(400)


def artifact(counter: int = 1, config: dict[str, Any] = CONFIG, **stub: Any) -> TestArtifact:
    """A release for the stand-in, whose build goes as `stub` says."""
    tree = {
        **TOKENIZER,
        "engine/config.json": json.dumps(config).encode(),
        "engine/model.safetensors": b"weights" * counter,
        "engine/stub.json": json.dumps(stub).encode(),
        "tokenizer/tokenizer_config.json": b"{}",
    }
    return make_artifact(tree, engine=ENGINE, release_counter=counter)


@pytest.fixture(autouse=True)
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    command = install_edge_llm(tmp_path / "environment")
    monkeypatch.setenv(COMMAND_VARIABLE, str(command))
    return command


@contextlib.asynccontextmanager
async def an_agent(root: Path, **changes: Any) -> AsyncIterator[tuple[RunningAgent, grpc.aio.Channel]]:
    settings = settings_for(root / "store", **changes)
    async with run_agent(settings) as agent, grpc.aio.insecure_channel(str(agent.address)) as channel:
        yield agent, channel


def prepared(root: Path, release: TestArtifact) -> Path:
    return root / "store/releases" / release.digest / "prepared"


async def until_preparing(agent: RunningAgent, step: str = "") -> str:
    """Returns the first sentence of a preparation that has come to this step."""
    await until(lambda: bool(agent.deployer.status.preparing) and step in agent.deployer.status.preparing)
    return agent.deployer.status.preparing


async def until(holds: Callable[[], bool]) -> None:
    """Returns once it holds."""
    for _ in range(int(WAIT_SECONDS / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"It did not hold within {WAIT_SECONDS:g} s.")


def serves(agent: RunningAgent) -> bool:
    with contextlib.suppress(EdgewrightError):
        return bool(agent.deployer.serving())
    return False


async def activate(channel: grpc.aio.Channel, release: bytes) -> list[deployment_pb2.WatchDeploymentResponse]:
    """Activates and watches until the board is at rest: builds take their time on a busy machine."""
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    request = deployment_pb2.ActivateReleaseRequest(release=release)
    await stub.ActivateRelease(request, timeout=TIMEOUT_SECONDS)
    watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=2 * WAIT_SECONDS)
    return [step async for step in watch]


def children_of_the_agent() -> Iterator[psutil.Process]:
    return (
        child
        for child in psutil.Process().children(recursive=True)
        if "build_engine" in " ".join(child.cmdline())
    )


async def test_a_release_is_prepared_once_and_says_so_meanwhile(tmp_path: Path) -> None:
    release = artifact(build_seconds=1.0)
    async with an_agent(tmp_path) as (agent, channel):
        pushed = await push(channel, release)
        steps = await activate(channel, pushed)
        phases = [step.phase for step in steps]
        assert deployment_pb2.PHASE_PREPARING in phases
        assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
        told = [step.message for step in steps if step.phase == deployment_pb2.PHASE_PREPARING]
        assert any("Building serialized engine" in message for message in told)
        assert all("TensorRT Edge-LLM 0.11.0" in message for message in told)
        (folder,) = prepared(tmp_path, release).iterdir()
        made = folder.stat().st_mtime_ns
        assert agent.store.prepared_bytes() > 0
    async with an_agent(tmp_path) as (agent, _):
        await until(lambda: serves(agent))
    assert folder.stat().st_mtime_ns == made


async def test_the_old_release_serves_while_another_is_prepared_and_after_that_failed(
    tmp_path: Path, gate: Path
) -> None:
    fails = "Error Code 2: OutOfMemory (Requested size was 9)"
    old, new = artifact(1), artifact(2, goes_on_once_exists=gate.name, fails=fails)
    async with an_agent(tmp_path) as (agent, channel):
        await activate(channel, await push(channel, old))
        engine = agent.deployer.serving().engine
        pushed = await push(channel, new)
        activating = asyncio.create_task(activate(channel, pushed))
        await until_preparing(agent, "Building serialized engine")
        assert agent.deployer.serving().engine is engine
        device = await deployment_pb2_grpc.DeploymentServiceStub(channel).GetDevice(
            deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS
        )
        assert device.phase == deployment_pb2.PHASE_PREPARING
        assert any(note.startswith("An engine is being prepared. TensorRT Edge-LLM") for note in device.notes)
        gate.touch()
        steps = await activating
        assert agent.deployer.serving().engine is engine
        tries = {step.attempt for step in steps if step.phase == deployment_pb2.PHASE_PREPARING}
        assert tries == {1, 2, 3}
        failed = next(step.message for step in steps if "could not be prepared" in step.message)
        assert "out of memory" in failed
        assert "Requested size was 9" in failed
        assert "It may take" in failed
        assert steps[-1].active_release == pushed_digest(old)
        assert list(prepared(tmp_path, new).iterdir()) == []


def pushed_digest(release: TestArtifact) -> bytes:
    return bytes.fromhex(release.digest)


async def test_a_preparation_keeps_to_what_the_serving_release_leaves_of_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_limit, "WATCH_SECONDS", 0.05)
    release = artifact(takes_bytes=400 << 20, build_seconds=20.0)
    async with an_agent(tmp_path, budget_bytes=200 << 20) as (_, channel):
        steps = await activate(channel, await push(channel, release))
    failed = next(step.message for step in steps if "could not be prepared" in step.message)
    assert "memory" in failed
    assert "200.0 MiB" in failed
    assert steps[-1].outcome == deployment_pb2.OUTCOME_FAILED


async def test_a_preparation_that_is_killed_leaves_nothing_and_is_tried_again(
    tmp_path: Path, gate: Path
) -> None:
    release = artifact(goes_on_once_exists=gate.name)
    async with an_agent(tmp_path) as (agent, channel):
        pushed = await push(channel, release)
        activating = asyncio.create_task(activate(channel, pushed))
        await until_preparing(agent, "Building serialized engine")
        for child in children_of_the_agent():
            os.kill(child.pid, signal.SIGKILL)
        gate.touch()
        steps = await activating
        assert any("could not be prepared: killed (signal 9)" in step.message for step in steps)
        assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
        assert [folder.name.startswith(".") for folder in prepared(tmp_path, release).iterdir()] == [False]


async def test_an_agent_that_stops_meanwhile_takes_the_preparation_with_it_and_begins_anew(
    tmp_path: Path, gate: Path
) -> None:
    release = artifact(goes_on_once_exists=gate.name)
    async with an_agent(tmp_path) as (agent, channel):
        pushed = await push(channel, release)
        await agent.deployer.activate(pushed.hex())
        await until_preparing(agent, "Building serialized engine")
    assert list(children_of_the_agent()) == []
    assert list(prepared(tmp_path, release).iterdir()) == []
    gate.touch()
    async with an_agent(tmp_path) as (agent, _):
        await until(lambda: agent.deployer.state.at_rest)
        assert agent.deployer.state.phase is Phase.IDLE
        assert agent.deployer.state.active == release.digest


async def test_what_a_power_cut_left_half_made_is_removed_at_the_next_start(tmp_path: Path) -> None:
    release = artifact()
    async with an_agent(tmp_path) as (_, channel):
        await push(channel, release)
    half = prepared(tmp_path, release) / ".tmp-0.11.0/engines/model-1/.building-2"
    half.mkdir(parents=True)
    (half / "llm.engine").write_bytes(b"half")
    store = Store(tmp_path / "store")
    assert list(prepared(tmp_path, release).iterdir()) == []
    store.close()


async def test_another_tensorrt_is_prepared_for_anew_and_the_old_engine_goes(
    tmp_path: Path, wheel: Path
) -> None:
    release = artifact()
    async with an_agent(tmp_path) as (_, channel):
        await activate(channel, await push(channel, release))
    (before,) = prepared(tmp_path, release).iterdir()
    (metadata,) = wheel.parent.parent.glob("lib/*/site-packages/tensorrt-*.dist-info/METADATA")
    metadata.write_text("Name: tensorrt\nVersion: 10.17.0\n", encoding="utf-8")
    async with an_agent(tmp_path) as (agent, _):
        await until_preparing(agent)
        await until(lambda: serves(agent))
    assert not before.exists()
    (after,) = prepared(tmp_path, release).iterdir()
    assert "10.17.0" in after.name


async def test_the_engine_goes_with_its_release_and_its_bytes_are_counted(tmp_path: Path) -> None:
    first, second = artifact(1), artifact(2)
    async with an_agent(tmp_path) as (agent, channel):
        for release in (first, second, artifact(3)):
            await activate(channel, await push(channel, release))
        before = agent.store.prepared_bytes()
        assert agent.store.bytes_by_state()["prepared"] == before > 0
        freed = await agent.deployer.delete(first.digest)
        after = agent.store.prepared_bytes()
        assert freed >= before - after > 0
        assert not prepared(tmp_path, first).exists()
        assert prepared(tmp_path, second).exists()


async def test_an_architecture_it_can_t_build_is_refused_and_the_old_release_serves_on(
    tmp_path: Path,
) -> None:
    old, new = artifact(1), artifact(2, {"model_type": "gemma3_text"})
    async with an_agent(tmp_path) as (agent, channel):
        await activate(channel, await push(channel, old))
        engine = agent.deployer.serving().engine
        steps = await activate(channel, await push(channel, new))
        assert any("the model is gemma3_text" in step.message for step in steps)
        assert steps[-1].active_release == pushed_digest(old)
        assert agent.deployer.serving().engine is engine


async def test_a_wheel_that_is_gone_refuses_the_release_before_it_is_staged(
    tmp_path: Path, wheel: Path
) -> None:
    wheel.unlink()
    async with an_agent(tmp_path) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError, match="tensorrt-edge-llm, which can't run here: ") as caught:
            await push(channel, artifact())
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
