"""InferenceService over the wire: streaming, cancelling, being full, and having nothing to serve."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from edgewright.v1 import inference_pb2, inference_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc
from edgewright_agent.server import RunningAgent
from edgewright_agent.store import StagedRelease
from tests.agent.services.test_deployment_service import detail, reason_of
from tests.support.artifacts import TIMEOUT_SECONDS, activate, make_artifact, push
from tests.support.scripted_engine import Script

Request = inference_pb2.GenerateRequest


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return inference_pb2_grpc.InferenceServiceStub(channel)


async def serve_something(channel: grpc.aio.Channel, **fields: Any) -> None:
    await activate(channel, await push(channel, make_artifact(**fields)))


async def generate(stub: Any, request: inference_pb2.GenerateRequest) -> list[Any]:
    return [event async for event in stub.Generate(request, timeout=TIMEOUT_SECONDS)]


async def test_without_a_release_nothing_is_served(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await generate(stub, Request(prompt="hello"))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error.value) == "NO_ACTIVE_RELEASE"


async def test_tokens_come_in_order_and_are_measured(
    channel: grpc.aio.Channel, stub: Any, script: Script
) -> None:
    script.pause_seconds = 0.01
    await serve_something(channel)
    responses = await generate(stub, Request(prompt="hello", max_tokens=4))
    assert [delta.text for each in responses for delta in each.deltas] == ["t0 ", "t1 ", "t2 ", "t3 "]
    last = responses[-1]
    assert last.completion.generated_tokens == 4
    assert last.completion.time_to_first_token_seconds >= 0.01
    assert last.completion.time_per_output_token_seconds >= 0.009
    assert not last.completion.HasField("energy")  # no sensor is no number
    telemetry = telemetry_pb2_grpc.TelemetryServiceStub(channel)
    answer = await telemetry.GetSnapshot(telemetry_pb2.GetSnapshotRequest(), timeout=TIMEOUT_SECONDS)
    serving = answer.snapshot.serving
    assert (serving.requests, serving.generated_tokens, serving.requests_in_flight) == (1, 4, 0)
    assert answer.snapshot.memory.engine_peak_bytes == script.peak_bytes


async def test_cancelling_frees_the_engine(channel: grpc.aio.Channel, stub: Any, script: Script) -> None:
    script.pause_seconds = 0.005
    await serve_something(channel)
    call = stub.Generate(Request(prompt="hello", max_tokens=100_000), timeout=TIMEOUT_SECONDS)
    await call.read()
    (engine,) = script.running
    assert engine.active_requests == 1
    call.cancel()
    while engine.active_requests:
        await asyncio.sleep(0.005)
    assert await generate(stub, Request(prompt="hello", max_tokens=1))


async def test_a_board_over_capacity_says_when_to_come_back(
    channel: grpc.aio.Channel, stub: Any, script: Script
) -> None:
    await serve_something(channel, limits={"context_tokens": 256, "concurrency": 1})
    script.pause_seconds = 0.05
    calls = [stub.Generate(Request(prompt="hi", max_tokens=1000), timeout=TIMEOUT_SECONDS) for _ in range(9)]
    await calls[0].read()
    while True:  # one is served, eight wait: the queue of one slot
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await generate_briefly(stub)
        if error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            break
    assert reason_of(error.value) == "OVERLOADED"
    assert detail(error.value, error_details_pb2.RetryInfo()).retry_delay.seconds >= 1
    for call in calls:
        call.cancel()


async def test_who_waits_is_served_by_the_release_that_took_over_meanwhile(
    channel: grpc.aio.Channel, stub: Any, script: Script, running_agent: RunningAgent
) -> None:
    script.pause_seconds = 0.005
    await serve_something(channel, limits={"context_tokens": 256, "concurrency": 1})
    holding = stub.Generate(Request(prompt="hi", max_tokens=100_000), timeout=TIMEOUT_SECONDS)
    await holding.read()
    waiting = asyncio.create_task(generate(stub, Request(prompt="hi", max_tokens=4)))
    second = asyncio.create_task(serve_something(channel, version="2.0", release_counter=2))
    while running_agent.deployer.serving().release.manifest.version != "2.0":
        await asyncio.sleep(0.005)
    assert not waiting.done()
    holding.cancel()
    await second
    assert (await waiting)[-1].completion.generated_tokens == 4


async def generate_briefly(stub: Any) -> None:
    """One request that is given up soon, should it be let into the queue."""
    call = stub.Generate(Request(prompt="hi"), timeout=0.2)
    async for _ in call:
        pass


async def test_an_engine_that_dies_is_an_error_and_comes_back(
    channel: grpc.aio.Channel, stub: Any, script: Script
) -> None:
    await serve_something(channel)
    script.pause_seconds = 0.01
    call = stub.Generate(Request(prompt="hello", max_tokens=1000), timeout=TIMEOUT_SECONDS)
    await call.read()
    script.running[0].die()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await read_to_the_end(call)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(error.value) == "ENGINE_FAILED"
    while len(script.engines) < 2:
        await asyncio.sleep(0.005)
    assert await generate(stub, Request(prompt="hello", max_tokens=1))


async def test_an_engine_that_is_being_started_is_told_from_one_that_failed(
    channel: grpc.aio.Channel, stub: Any, script: Script
) -> None:
    await serve_something(channel)
    starting, ready = asyncio.Event(), asyncio.Event()

    async def start_late(what: str, release: StagedRelease) -> None:
        if what == "start":
            starting.set()
            await ready.wait()

    script.before = start_late
    script.running[0].die()
    await starting.wait()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await generate(stub, Request(prompt="hello", max_tokens=1))
    assert reason_of(error.value) == "ENGINE_STARTING"
    assert detail(error.value, error_details_pb2.RetryInfo()) is not None
    ready.set()


async def read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(prompt=""),
        Request(chat=inference_pb2.Chat()),
        Request(prompt="p", temperature=-1),
        Request(prompt="p", temperature=math.nan),
        Request(prompt="p", top_p=0),
        Request(prompt="p", top_p=1.5),
        Request(prompt="p", stop=["s"] * 9),
        Request(prompt="p", stop=[""]),
    ],
)
async def test_values_out_of_bounds_are_refused(stub: Any, request_: inference_pb2.GenerateRequest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await generate(stub, request_)
    assert reason_of(error.value) == "INVALID_ARGUMENT"


async def test_scores_come_in_the_order_asked(channel: grpc.aio.Channel, stub: Any) -> None:
    await serve_something(channel)
    items = [
        inference_pb2.ScoreItem(context="c", continuations=[" a", " bb"]),
        inference_pb2.ScoreItem(context="d", continuations=[" ccc"]),
    ]
    response = await stub.Score(inference_pb2.ScoreRequest(items=items), timeout=TIMEOUT_SECONDS)
    found = [[score.log_likelihood for score in item.continuations] for item in response.items]
    assert found == [[-2.0, -3.0], [-4.0]]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Score(inference_pb2.ScoreRequest(items=items * 129), timeout=TIMEOUT_SECONDS)
    assert reason_of(error.value) == "INVALID_ARGUMENT"


async def test_telemetry_can_be_watched_within_bounds(channel: grpc.aio.Channel) -> None:
    stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
    watch: Any = stub.WatchTelemetry(
        telemetry_pb2.WatchTelemetryRequest(interval_seconds=0.1), timeout=TIMEOUT_SECONDS
    )
    first, second = await watch.read(), await watch.read()
    assert second.snapshot.monotonic_seconds > first.snapshot.monotonic_seconds
    watch.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in stub.WatchTelemetry(
            telemetry_pb2.WatchTelemetryRequest(interval_seconds=0.01), timeout=TIMEOUT_SECONDS
        ):
            pass
    assert reason_of(error.value) == "INVALID_ARGUMENT"


async def test_a_benchmark_reports_the_prompts_and_tokens_that_were_asked_for(
    channel: grpc.aio.Channel, running_agent: RunningAgent
) -> None:
    await serve_something(channel)
    stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
    request = telemetry_pb2.RunBenchmarkRequest(prompts=3, input_tokens=2, output_tokens=5, concurrency=2)
    events = [event async for event in stub.RunBenchmark(request, timeout=TIMEOUT_SECONDS)]
    assert events[-1].result.prompts == 3
    assert events[-1].result.output_tokens == 5
    (release,) = running_agent.store.releases().values()
    engine_bytes = sum(f.size_bytes for f in release.manifest.files if f.path.startswith("engine/"))
    assert events[-1].result.weights_bytes == engine_bytes
