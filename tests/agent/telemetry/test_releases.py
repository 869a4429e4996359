"""Under which release requests and snapshots are told, while releases change and engines die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

from edgewright.address import Address
from edgewright.v1 import inference_pb2, inference_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.store import StagedRelease
from edgewright_agent.telemetry.exporters.otlp import instrument
from edgewright_agent.telemetry_feeds import ObservationSettings
from tests.agent.conftest import settings_for
from tests.support.artifacts import TIMEOUT_SECONDS, activate, make_artifact, push
from tests.support.scripted_engine import TOKENS, Script, only_fake

GOLDEN = {"prompt": "hello", "tokens": list(TOKENS)}
FIRST = make_artifact(golden=GOLDEN)
NEXT = make_artifact(name="other", version="2.0", golden=GOLDEN, release_counter=2)
ONE_ENGINE_BYTES = 3 * 2**19  # of budget: two engines side by side are predicted to take 2 MiB


@asynccontextmanager
async def board(
    tmp_path: Path, script: Script, **options: Any
) -> AsyncIterator[tuple[RunningAgent, grpc.aio.Channel]]:
    observation = ObservationSettings(record_seconds=0.02, metrics=Address("127.0.0.1", 0))
    settings = settings_for(tmp_path / "store", observation=observation, **options)
    async with (
        run_agent(settings, available_engines=only_fake, start_engine=script.start) as agent,
        grpc.aio.insecure_channel(str(agent.address)) as channel,
    ):
        yield agent, channel


def labels_of(agent: RunningAgent, name: str) -> list[dict[str, str]]:
    """Of every sample of this metric, as scraped now."""
    families = text_string_to_metric_families(httpx.get(f"http://{agent.observation.metrics}/metrics").text)
    return [s.labels for family in families for s in family.samples if s.name == name]


def counted_under(agent: RunningAgent) -> set[tuple[str, str, str]]:
    labels = labels_of(agent, "edgewright_request_duration_seconds_count")
    return {(each["model"], each["release"], each["finish_reason"]) for each in labels}


async def ask(channel: grpc.aio.Channel, max_tokens: int = 3) -> None:
    request = inference_pb2.GenerateRequest(prompt="hello", max_tokens=max_tokens)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    async for _ in stub.Generate(request, timeout=TIMEOUT_SECONDS):
        pass


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.005)


async def told_releases(channel: grpc.aio.Channel) -> set[str]:
    """The release of the snapshot of now and of the one recorded last."""
    stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
    now = await stub.GetSnapshot(telemetry_pb2.GetSnapshotRequest(), timeout=TIMEOUT_SECONDS)
    await asyncio.sleep(0.1)  # several are recorded meanwhile
    request = telemetry_pb2.WatchTelemetryRequest(after_sequence=0, recorded_only=True)
    recorded = [each.snapshot async for each in stub.WatchTelemetry(request, timeout=TIMEOUT_SECONDS)]
    return {now.snapshot.active_release.hex(), recorded[-1].active_release.hex()}


async def test_a_candidate_that_serves_before_it_is_committed_is_named_by_its_own_digest(
    tmp_path: Path, script: Script
) -> None:
    async with board(tmp_path, script, budget_bytes=ONE_ENGINE_BYTES) as (agent, channel):
        await activate(channel, await push(channel, FIRST))
        await push(channel, NEXT)
        await agent.deployer.activate(NEXT.digest, confirm_within_seconds=60)
        await until(lambda: agent.deployer.state.awaiting_confirmation)
        await ask(channel)
        assert agent.deployer.state.active == FIRST.digest
        info = labels_of(agent, "edgewright_release_info")
        assert [(each["digest"], each["version"]) for each in info] == [(NEXT.digest, "2.0")]
        assert counted_under(agent) == {("other", NEXT.digest[:12], "length")}
        assert await told_releases(channel) == {NEXT.digest}


async def test_a_first_release_is_named_before_it_is_committed(tmp_path: Path, script: Script) -> None:
    async with board(tmp_path, script) as (agent, channel):
        await push(channel, FIRST)
        await agent.deployer.activate(FIRST.digest, confirm_within_seconds=60)
        await until(lambda: agent.deployer.state.awaiting_confirmation)
        await ask(channel)
        assert [each["digest"] for each in labels_of(agent, "edgewright_release_info")] == [FIRST.digest]
        assert counted_under(agent) == {("tiny", FIRST.digest[:12], "length")}


async def test_a_request_whose_engine_died_is_counted_under_the_release_that_lost_it(tmp_path: Path) -> None:
    script = Script(pause_seconds=0.01)
    async with board(tmp_path, script, restart_seconds=60.0) as (agent, channel):
        await activate(channel, await push(channel, FIRST))
        asking = asyncio.create_task(ask(channel, max_tokens=1000))
        await until(lambda: script.running[0].active_requests == 1)
        script.running[0].die()
        assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], grpc.aio.AioRpcError)
        assert counted_under(agent) == {("tiny", FIRST.digest[:12], "error")}
        assert labels_of(agent, "edgewright_release_info") == []  # nothing serves until it is restarted
        assert await told_releases(channel) == {""}


async def test_a_request_that_ends_while_its_release_is_replaced_is_counted_under_that_release(
    tmp_path: Path, script: Script
) -> None:
    let_go = asyncio.Event()

    async def held_on_the_first(what: str, release: StagedRelease) -> None:
        if what == "ask" and release.digest == FIRST.digest:
            await let_go.wait()

    reader = InMemoryMetricReader()
    async with board(tmp_path, script) as (agent, channel):
        stop = instrument(reader, agent.telemetry.snapshot, agent.telemetry.subscribe)
        await activate(channel, await push(channel, FIRST))
        await push(channel, NEXT)
        script.before = held_on_the_first
        asking = asyncio.create_task(ask(channel))
        await until(lambda: script.running[0].active_requests == 1)
        await agent.deployer.activate(NEXT.digest)
        await until(lambda: agent.deployer.serving().release.digest == NEXT.digest)
        let_go.set()
        await asking
        assert counted_under(agent) == {("tiny", FIRST.digest[:12], "length")}
        assert models_sent(reader) == {"tiny"}
        stop()


def models_sent(reader: InMemoryMetricReader) -> set[object]:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    points = next(each for each in metrics if each.name == "gen_ai.server.request.duration").data.data_points
    return {(point.attributes or {})["gen_ai.response.model"] for point in points}


BENCHMARK = telemetry_pb2.RunBenchmarkRequest(prompts=200, input_tokens=2, output_tokens=20, concurrency=1)


async def to_its_end(benchmark: Any) -> None:
    while await benchmark.read() is not grpc.aio.EOF:
        pass


async def test_a_benchmark_ends_where_another_release_serves(tmp_path: Path, script: Script) -> None:
    script.pause_seconds = 0.002
    async with board(tmp_path, script) as (_, channel):
        await activate(channel, await push(channel, FIRST))
        following = await push(channel, NEXT)
        stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        benchmark = stub.RunBenchmark(BENCHMARK, timeout=TIMEOUT_SECONDS)
        await benchmark.read()
        await activate(channel, following)
        with pytest.raises(grpc.aio.AioRpcError, match=r"changed during the benchmark|No release is being"):
            await to_its_end(benchmark)


async def test_a_benchmark_ends_with_its_engine(tmp_path: Path, script: Script) -> None:
    script.pause_seconds = 0.002
    async with board(tmp_path, script, restart_seconds=0.5) as (_, channel):
        await activate(channel, await push(channel, FIRST))
        stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
        benchmark = stub.RunBenchmark(BENCHMARK, timeout=TIMEOUT_SECONDS)
        await benchmark.read()
        script.running[0].die()
        with pytest.raises(grpc.aio.AioRpcError, match=r"changed during|being restarted|is gone"):
            await to_its_end(benchmark)
