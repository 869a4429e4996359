"""Adapter releases: a base on the board, an adapter of it, switched in the engine that runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewright.errors import OutsideError, RefusedError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from edgewright_agent.deployment import engine_manager
from edgewright_agent.engine_worker.model.fake import fake_tokens
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.process.kills import Among, Kills
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.store import Space, StagedRelease, Store
from tests.agent.conftest import settings_for
from tests.agent.deployment.test_deployer import activated, deploying
from tests.agent.test_agent_process import generated_soon, insecure, trusted
from tests.support.agent_process import serving
from tests.support.artifacts import (
    TIMEOUT_SECONDS,
    TestArtifact,
    activate,
    make_artifact,
    push,
    put_blob,
    stage,
    upload,
)
from tests.support.scripted_engine import TOKENS, Script

__all__ = ["trusted"]  # the fixture

PROMPT = "hello"
MODULES = ["q_proj", "v_proj"]
WEIGHTS = b"weights" * 40_000


def golden(adapter: bytes = b"") -> dict[str, Any]:
    """What the fake engine says with this adapter."""
    tokens = list(itertools.islice(fake_tokens(list(PROMPT.encode()), adapter.hex()), 8))
    return {"prompt": PROMPT, "tokens": tokens}


def base_release(**fields: Any) -> TestArtifact:
    tree = {"engine/fake.json": b"{}", "engine/model.bin": WEIGHTS, "tokenizer/tokenizer.json": b"{}"}
    slots = {"modules": MODULES, "rank": 8}
    return make_artifact(tree, **{"name": "base", "golden": golden(), "adapter_slots": slots, **fields})


def adapter_of(base: TestArtifact, content: bytes = b"a" * 5000, **fields: Any) -> TestArtifact:
    spec = {"base": base.digest, "path": "adapter/a.onnx_adapter", "modules": MODULES, "rank": 4}
    spec |= fields.pop("adapter", {})
    defaults = {"name": "task", "golden": golden(content), "adapter": spec}
    return make_artifact({"adapter/a.onnx_adapter": content}, **{**defaults, **fields})


BASE = base_release()
ADAPTER = adapter_of(BASE)


async def greedy(channel: grpc.aio.Channel) -> list[int]:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    request = inference_pb2.GenerateRequest(prompt=PROMPT, max_tokens=8)
    call = stub.Generate(request, timeout=TIMEOUT_SECONDS)
    return [delta.token async for event in call for delta in event.deltas]


async def rolled_back(channel: grpc.aio.Channel) -> deployment_pb2.WatchDeploymentResponse:
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    await stub.RollBack(deployment_pb2.RollBackRequest(), timeout=TIMEOUT_SECONDS)
    watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=TIMEOUT_SECONDS)
    return [step async for step in watch][-1]


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[RunningAgent]:
    """An agent with real engine processes of the fake kind."""
    async with run_agent(settings_for(tmp_path / "store")) as agent:
        yield agent


@contextlib.asynccontextmanager
async def calling(agent: RunningAgent) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(str(agent.address)) as channel:
        yield channel


async def test_an_adapter_is_switched_in_the_running_engine_and_back(board: RunningAgent) -> None:
    async with calling(board) as channel:
        await activate(channel, await push(channel, BASE))
        pid = board.deployer.serving().engine.pid
        assert await greedy(channel) == golden()["tokens"]

        steps = await activate(channel, await push(channel, ADAPTER))
        assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
        assert "golden_prompt" in [probe.name for probe in steps[-1].probes if probe.passed]
        assert board.deployer.serving().engine.pid == pid
        assert await greedy(channel) == golden(b"a" * 5000)["tokens"] != golden()["tokens"]

        assert (await rolled_back(channel)).active_release.hex() == BASE.digest
        assert board.deployer.serving().engine.pid == pid
        assert await greedy(channel) == golden()["tokens"]


async def test_one_adapter_is_switched_for_another(board: RunningAgent) -> None:
    second = adapter_of(BASE, b"b" * 5000, version="2.0")
    async with calling(board) as channel:
        for artifact in (BASE, ADAPTER, second):
            steps = await activate(channel, await push(channel, artifact))
            assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
        assert await greedy(channel) == golden(b"b" * 5000)["tokens"]
        assert (await rolled_back(channel)).active_release.hex() == ADAPTER.digest
        assert await greedy(channel) == golden(b"a" * 5000)["tokens"]


async def test_an_adapter_whose_base_is_not_active_starts_an_engine_of_its_own(board: RunningAgent) -> None:
    other = base_release(name="other", version="2.0")
    async with calling(board) as channel:
        await push(channel, BASE)
        await activate(channel, await push(channel, other))
        steps = await activate(channel, await push(channel, ADAPTER))
        assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
        assert await greedy(channel) == golden(b"a" * 5000)["tokens"]


async def test_only_the_adapter_s_bytes_travel(board: RunningAgent) -> None:
    async with calling(board) as channel:
        await push(channel, BASE)
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        assert await upload(channel, ADAPTER) == ADAPTER.manifest.size_bytes == 5000
        await push(channel, ADAPTER)
        listed = await stub.ListReleases(deployment_pb2.ListReleasesRequest(), timeout=TIMEOUT_SECONDS)
        bases = {release.release.hex(): release.base_release.hex() for release in listed.releases}
        assert bases == {BASE.digest: "", ADAPTER.digest: BASE.digest}


async def test_an_adapter_that_fails_its_golden_prompt_is_rolled_back_to_the_base(
    board: RunningAgent,
) -> None:
    wrong = adapter_of(BASE, golden=golden())  # as if the adapter changed nothing
    async with calling(board) as channel:
        await activate(channel, await push(channel, BASE))
        steps = await activate(channel, await push(channel, wrong))
        assert steps[-1].outcome == deployment_pb2.OUTCOME_ROLLED_BACK
        assert steps[-1].active_release.hex() == BASE.digest
        assert await greedy(channel) == golden()["tokens"]


async def test_a_file_that_is_no_adapter_is_rolled_back_and_the_base_serves_on(board: RunningAgent) -> None:
    async with calling(board) as channel:
        await activate(channel, await push(channel, BASE))
        steps = await activate(channel, await push(channel, adapter_of(BASE, b"broken")))
        assert steps[-1].outcome == deployment_pb2.OUTCOME_ROLLED_BACK
        assert await greedy(channel) == golden()["tokens"]


async def test_an_adapter_without_its_base_is_refused_by_the_base_s_name(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=BASE.digest) as caught:
        await push(channel, ADAPTER)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "Push it first." in str(caught.value.details())


async def test_an_adapter_whose_base_was_signed_again_for_a_mirror_says_what_to_do(
    channel: grpc.aio.Channel,
) -> None:
    mirrors = [{"layout": "oci-layout", "url": "https://downloads.example.org/slm"}]
    signed_again = await push(channel, base_release(mirrors=mirrors))
    with pytest.raises(grpc.aio.AioRpcError, match=signed_again.hex()[:12]) as caught:
        await push(channel, ADAPTER)
    assert "build the adapter again with --resume" in str(caught.value.details())


@pytest.mark.parametrize(
    ("base", "adapter", "why"),
    [
        (base_release(adapter_slots=None), {}, "takes no adapters"),
        (BASE, {"rank": 9}, "up to rank 8, this one has 9"),
        (BASE, {"modules": ["q_proj", "up_proj"]}, "q_proj, v_proj, this one has up_proj"),
    ],
)
async def test_an_adapter_that_the_base_does_not_take_is_refused(
    channel: grpc.aio.Channel, base: TestArtifact, adapter: dict[str, Any], why: str
) -> None:
    await push(channel, base)
    with pytest.raises(grpc.aio.AioRpcError, match=why) as caught:
        await push(channel, adapter_of(base, adapter=adapter))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_an_adapter_of_an_adapter_is_refused(channel: grpc.aio.Channel) -> None:
    await push(channel, BASE)
    await push(channel, ADAPTER)
    with pytest.raises(grpc.aio.AioRpcError, match="takes no adapters"):
        await push(channel, adapter_of(ADAPTER, b"c" * 100))


async def test_a_base_that_an_adapter_needs_can_t_be_deleted(board: RunningAgent) -> None:
    async with calling(board) as channel:
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        base, adapter = await push(channel, BASE), await push(channel, ADAPTER)
        delete = deployment_pb2.DeleteReleaseRequest(release=base)
        with pytest.raises(grpc.aio.AioRpcError, match=ADAPTER.digest[:12]) as caught:
            await stub.DeleteRelease(delete, timeout=TIMEOUT_SECONDS)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        await stub.DeleteRelease(
            deployment_pb2.DeleteReleaseRequest(release=adapter), timeout=TIMEOUT_SECONDS
        )
        await stub.DeleteRelease(delete, timeout=TIMEOUT_SECONDS)
        assert board.store.releases() == {}


def test_garbage_collection_keeps_the_base_of_an_adapter(tmp_path: Path) -> None:
    clock = itertools.count(0, 100_000)
    store = Store(tmp_path, space=Space(reserve_bytes=0), clock=lambda: float(next(clock)))
    stage(store, BASE)
    stage(store, ADAPTER)
    assert store.collect().blobs == {}
    store.verify(BASE.manifest)
    store.verify(ADAPTER.manifest)
    store.close()


def test_a_base_that_goes_while_its_adapter_arrives_is_missed_at_staging(tmp_path: Path) -> None:
    store = Store(tmp_path, space=Space(reserve_bytes=0))
    for data in ADAPTER.contents.values():
        put_blob(store, data, 4096)
    with pytest.raises(RefusedError, match=BASE.digest):
        store.stage(ADAPTER.manifest, ADAPTER.manifest_bytes, ADAPTER.envelope)
    store.close()


async def test_an_engine_that_dies_at_the_switch_is_started_anew_with_the_adapter(
    channel: grpc.aio.Channel, running_agent: RunningAgent, script: Script
) -> None:
    base = base_release(golden=None)
    await activate(channel, await push(channel, base))
    adapter = await push(channel, adapter_of(base, golden=None))
    script.refuse_adapters = True
    steps = await activate(channel, adapter)
    assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
    assert steps[-1].active_release == adapter
    assert [engine.release.manifest.kind for engine in script.engines] == ["model", "adapter"]
    assert len(script.running) == 1


async def test_an_engine_that_hangs_at_the_switch_is_started_anew_with_the_adapter(
    channel: grpc.aio.Channel, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_manager, "SWITCH_SECONDS_MAX", 0.05)
    base = base_release(golden=None)
    await activate(channel, await push(channel, base))
    adapter = await push(channel, adapter_of(base, golden=None))

    async def hang(what: str, release: StagedRelease) -> None:
        if what == "switch":
            await asyncio.sleep(3600)

    script.before = hang
    steps = await activate(channel, adapter)
    assert any("did not change its adapter within" in step.message for step in steps)
    assert steps[-1].active_release == adapter
    assert [engine.release.manifest.kind for engine in script.engines] == ["model", "adapter"]
    assert len(script.running) == 1


async def test_a_killed_agent_serves_the_adapter_again(tmp_path: Path, trusted: Path) -> None:
    store = tmp_path / "store"
    with serving(store, *insecure(trusted)) as agent:
        async with grpc.aio.insecure_channel(agent.address) as channel:
            await activate(channel, await push(channel, BASE))
            await activate(channel, await push(channel, ADAPTER))
        agent.process.kill()
    with serving(store, *insecure(trusted)) as agent:
        async with grpc.aio.insecure_channel(agent.address) as channel:
            await generated_soon(channel)
            assert await greedy(channel) == golden(b"a" * 5000)["tokens"]
            assert (await rolled_back(channel)).active_release.hex() == BASE.digest
            assert await greedy(channel) == golden()["tokens"]


async def test_an_active_adapter_that_lost_its_base_gives_way_to_what_served_before(tmp_path: Path) -> None:
    root, other = tmp_path / "store", base_release(name="other", version="2.0")
    async with run_agent(settings_for(root)) as agent, calling(agent) as channel:
        await push(channel, BASE)
        await activate(channel, await push(channel, other))
        await activate(channel, await push(channel, ADAPTER))
    damaged = root / "releases" / BASE.digest / "manifest.json"
    damaged.chmod(0o644)
    damaged.write_bytes(b"{}")
    async with run_agent(settings_for(root)) as agent, calling(agent) as channel:
        [status async for status in agent.deployer.watch(follow=False)]
        assert agent.deployer.state.active == other.digest


async def test_nothing_serves_an_adapter_alone(tmp_path: Path) -> None:
    """Without the base and without a release before it, the board says so instead of failing at random."""
    root = tmp_path / "store"
    async with run_agent(settings_for(root)) as agent, calling(agent) as channel:
        await push(channel, BASE)
        await activate(channel, await push(channel, ADAPTER))
    damaged = root / "releases" / BASE.digest / "manifest.json"
    damaged.chmod(0o644)
    damaged.write_bytes(b"{}")
    async with run_agent(settings_for(root)) as agent:
        [status async for status in agent.deployer.watch(follow=False)]
        with pytest.raises((RefusedError, OutsideError)):
            agent.deployer.serving()


async def test_a_kill_for_memory_before_a_switch_is_not_the_adapter_s(tmp_path: Path) -> None:
    tokens, script = {"prompt": "p", "tokens": list(TOKENS)}, Script()
    base = base_release(golden=tokens)
    adapter = adapter_of(base, golden=tokens)
    async with deploying(tmp_path, script, budget_bytes=2**30) as deployer:
        stage(deployer._store, base)
        stage(deployer._store, adapter)
        await activated(deployer, base.digest)
        script.kills = Kills(1, Among.BOARD)
        await activated(deployer, adapter.digest)
        assert deployer.state.active == adapter.digest
        assert len(script.engines) == 1


async def test_an_engine_without_adapters_says_so(tmp_path: Path) -> None:
    async def not_found(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(not_found, tmp_path / "http"):
        client = EngineClient(tmp_path / "http", "model")
        with pytest.raises(RefusedError, match="takes no adapters"):
            await client.use_adapter(tmp_path / "a.onnx_adapter", "task")
