from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright.v1 import (
    deployment_pb2,
    deployment_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
)
from edgewright_agent.engines import EngineMemory
from edgewright_agent.openai_api.settings import OpenAISettings
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.telemetry.exporters.otlp import instrument
from edgewright_agent.telemetry.exporters.phase_changes import Changes
from edgewright_agent.telemetry.exporters.prometheus import Sources, serve_metrics
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry.types import Deployment, StoreUsage
from edgewright_agent.telemetry_feeds import ObservationSettings
from edgewright_profiles import load_profile
from tests.agent.conftest import settings_for
from tests.fixtures.boards import write_board
from tests.support.artifacts import TIMEOUT_SECONDS, activate, make_artifact, push
from tests.support.scripted_engine import TOKENS, Script, only_fake

LOOPBACK = Address("127.0.0.1", 0)
NOTHING = Deployment("idle", None)
DASHBOARD = Path(__file__).parents[3] / "agent/grafana/edgewright-boards.json"


@pytest.fixture
async def observed(tmp_path: Path, script: Script) -> AsyncIterator[RunningAgent]:
    observation = ObservationSettings(record_seconds=0.05, metrics=LOOPBACK)
    settings = settings_for(tmp_path / "store", observation=observation)
    async with run_agent(settings, available_engines=only_fake, start_engine=script.start) as agent:
        yield agent


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(address: Address | None) -> str:
    return httpx.get(f"http://{address}/metrics").text


def on_board(board: str, profile: str, root: Path) -> Telemetry:
    budget_bytes = load_profile(profile).budget_bytes()
    telemetry = Telemetry(load_profile(profile), write_board(board, root), budget_bytes=budget_bytes)
    telemetry.sample()
    return telemetry


def sources_of(telemetry: Telemetry) -> Sources:
    return Sources(telemetry.snapshot, lambda: NOTHING, telemetry.subscribe)


def exposed(telemetry: Telemetry) -> str:
    address, stop = serve_metrics(LOOPBACK, sources_of(telemetry))
    try:
        return scrape(address)
    finally:
        stop()


async def test_a_served_request_is_counted_under_its_release(observed: RunningAgent) -> None:
    async with grpc.aio.insecure_channel(str(observed.address)) as channel:
        release = await push(channel, make_artifact(golden={"prompt": "hello", "tokens": list(TOKENS)}))
        await activate(channel, release)
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        call = stub.Generate(
            inference_pb2.GenerateRequest(prompt="hello", max_tokens=3), timeout=TIMEOUT_SECONDS
        )
        assert [len(event.deltas) async for event in call]
    found = samples(scrape(observed.observation.metrics))
    labels = frozenset({("model", "tiny"), ("release", release.hex()[:12]), ("backend", "fake")})
    assert found["edgewright_generated_tokens_total", labels] == 3
    assert found["edgewright_time_to_first_token_seconds_count", labels] == 1
    assert found["edgewright_request_duration_seconds_count", labels | {("finish_reason", "length")}] == 1
    info = {("digest", release.hex()), ("model", "tiny"), ("version", "1.0"), ("counter", "1")}
    assert found["edgewright_release_info", frozenset(info)] == 1
    assert found["edgewright_update_phase", frozenset({("phase", "idle")})] == 1
    steps = (("idle", "staged"), ("staged", "activating"), ("activating", "probation"), ("probation", "idle"))
    for step in steps:
        took = frozenset(zip(("from", "to"), step, strict=True))
        assert found["edgewright_update_transitions_total", took] == 1
    sent = {
        way: found["edgewright_upload_bytes_total", frozenset({("kind", way)})] for way in ("full", "dedup")
    }
    assert sent["full"] > 0
    assert found["edgewright_store_bytes", frozenset({("state", "stored")})] == sum(sent.values())
    assert found["edgewright_store_bytes", frozenset({("state", "free")})] > 0
    assert found["edgewright_store_scrub_errors_total", frozenset()] == 0


async def test_rollbacks_are_counted_by_what_they_were_for(
    observed: RunningAgent, script: Script, tmp_path: Path
) -> None:
    async with grpc.aio.insecure_channel(str(observed.address)) as channel:
        for number in (1, 2):
            good = make_artifact(golden={"prompt": "hello", "tokens": list(TOKENS)}, release_counter=number)
            await activate(channel, await push(channel, good))
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        await stub.RollBack(deployment_pb2.RollBackRequest(), timeout=TIMEOUT_SECONDS)
        await at_rest(observed)
        script.refuse.add((refused := make_artifact(release_counter=3)).digest)
        await activate(channel, await push(channel, refused))
        wrong = make_artifact(golden={"prompt": "hello", "tokens": [99, 98]}, release_counter=4)
        await activate(channel, await push(channel, wrong))
    found = samples(scrape(observed.observation.metrics))
    rollbacks = {
        dict(labels)["reason"]: value
        for (name, labels), value in found.items()
        if name == "edgewright_rollbacks_total"
    }
    assert rollbacks == {"asked": 1, "did_not_start": 1, "failed_probation": 1}


async def at_rest(agent: RunningAgent) -> None:
    async for status in agent.deployer.watch(follow=False):
        if status.state.at_rest:
            return


def test_a_missing_sensor_is_an_absent_metric_and_says_so(tmp_path: Path) -> None:
    found = samples(exposed(on_board("raspberry-pi-5", "raspberry-pi-5-8gb", tmp_path)))
    assert found["edgewright_sensor_available", frozenset({("sensor", "ina3221")})] == 0
    assert not [name for name, _ in found if name.startswith(("edgewright_power_watts", "edgewright_energy"))]
    assert not [name for name, _ in found if name == "edgewright_nvmap_used_bytes"]


def test_every_figure_of_an_orin_nano_is_exposed_in_base_units(tmp_path: Path) -> None:
    found = samples(exposed(on_board("orin-nano", "jetson-orin-nano-8gb", tmp_path)))
    assert ("edgewright_energy_joules_total", frozenset({("rail", "VDD_IN"), ("scope", "module")})) in found
    assert found["edgewright_nvmap_used_bytes", frozenset()] == 512 * 2**20
    assert found["edgewright_largest_free_blocks", frozenset()] == 417
    assert found["edgewright_memory_pressure_seconds_total", frozenset({("kind", "some")})] == 1.234567
    assert found["edgewright_power_mode_info", frozenset({("name", "MAXN_SUPER")})] == 1


NAMES = (
    "request_duration_seconds", "time_to_first_token_seconds", "time_per_output_token_seconds",
    "prompt_tokens", "generated_tokens", "requests_in_flight", "requests_rejected", "energy_joules",
    "power_watts", "energy_samples", "energy_gaps", "memory_available_bytes", "memory_budget_bytes",
    "engine_memory_peak_bytes", "nvmap_used_bytes", "largest_free_blocks", "swap_used_bytes",
    "temperature_celsius", "gpu_load_ratio", "clock_hertz", "power_mode_info", "throttle_events",
    "update_phase", "update_transitions", "rollbacks", "release_info", "upload_bytes", "store_bytes",
    "store_scrub_errors", "sensor_available",
)  # fmt: skip


def test_the_names_are_those_that_dashboards_are_written_against(tmp_path: Path) -> None:
    telemetry = on_board("orin-nano", "jetson-orin-nano-8gb", tmp_path)
    telemetry.sample()  # watts need two
    telemetry.set_engine_memory_source(lambda: EngineMemory(5, 9, "pss"))
    changes = Changes()
    for phase in ("idle", "activating", "rolling_back"):
        changes.now(phase, host_asked=False)
    serving = Deployment("idle", "ab" * 32, "tiny", "1.0", 1)
    stored = StoreUsage({"stored": 1}, {"full": 1}, 0)
    sources = Sources(telemetry.snapshot, lambda: serving, telemetry.subscribe, changes, lambda: stored)
    address, stop = serve_metrics(LOOPBACK, sources)
    try:
        families = {family.name for family in text_string_to_metric_families(scrape(address))}
    finally:
        stop()
    assert {f"edgewright_{name}" for name in NAMES} <= families


def test_a_metrics_port_in_use_is_bad_input(tmp_path: Path) -> None:
    telemetry = on_board("orin-nano", "jetson-orin-nano-8gb", tmp_path)
    address, stop = serve_metrics(LOOPBACK, sources_of(telemetry))
    try:
        with pytest.raises(InputError, match=f"can't be served on {address}"):
            serve_metrics(address, sources_of(telemetry))
    finally:
        stop()


def test_every_metric_of_the_dashboard_is_one_the_agent_has(tmp_path: Path) -> None:
    telemetry = on_board("orin-nano", "jetson-orin-nano-8gb", tmp_path)
    telemetry.sample()  # watts need two
    text = exposed(telemetry)
    names = {name for name, _ in samples(text)} | set(re.findall(r"^# TYPE (\w+)", text, re.M))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    used = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"edgewright_\w+", target["expr"])
    }
    present_with_an_engine = {
        "edgewright_engine_memory_bytes", "edgewright_engine_memory_peak_bytes", "edgewright_release_info",
    }  # fmt: skip
    assert len(used) > 15
    assert used - names <= present_with_an_engine


def test_otlp_uses_opentelemetrys_names_and_units(tmp_path: Path) -> None:
    telemetry = on_board("orin-nano", "jetson-orin-nano-8gb", tmp_path)
    reader = InMemoryMetricReader()
    stop = instrument(reader, telemetry.snapshot, telemetry.subscribe)
    window = telemetry.request()
    window.token()
    window.end(prompt_tokens=5)
    data = reader.get_metrics_data()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    units = {metric.name: metric.unit for metric in metrics}
    assert units["gen_ai.server.time_to_first_token"] == "s"
    assert units["hw.energy"] == "J"
    rails = next(metric for metric in metrics if metric.name == "hw.energy").data.data_points
    assert {str((point.attributes or {})["hw.id"]) for point in rails} == {
        "VDD_IN",
        "VDD_CPU_GPU_CV",
        "VDD_SOC",
    }
    stop()


async def test_otlp_tells_chat_from_completions_through_both_apis_and_counts_tokens_in_a_histogram(
    tmp_path: Path, script: Script
) -> None:
    reader, socket = InMemoryMetricReader(), tmp_path / "openai.sock"
    settings = settings_for(tmp_path / "store", openai=OpenAISettings(socket))
    async with run_agent(settings, available_engines=only_fake, start_engine=script.start) as agent:
        async with grpc.aio.insecure_channel(str(agent.address)) as channel:
            await activate(channel, await push(channel, make_artifact()))
            stop = instrument(reader, agent.telemetry.snapshot, agent.telemetry.subscribe)
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            chat = inference_pb2.Chat(messages=[inference_pb2.ChatMessage(role="user", content="hello")])
            for asked in ({"prompt": "hello"}, {"chat": chat}):
                request = inference_pb2.GenerateRequest(max_tokens=20, **asked)
                assert [event async for event in stub.Generate(request, timeout=TIMEOUT_SECONDS)]
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(socket))) as http:
            for route in ("completions", "chat/completions", "chat/completions"):
                await http.post(f"http://localhost/v1/{route}", json={"max_tokens": 20, "stream": True})
    data = reader.get_metrics_data()
    assert data is not None
    stop()
    (usage,) = (
        metric
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "gen_ai.client.token.usage"
    )
    points = {}
    for point in usage.data.data_points:
        assert isinstance(point, HistogramDataPoint)
        labels = point.attributes or {}
        points[labels["gen_ai.operation.name"], labels["gen_ai.token.type"]] = point
    assert {key: (point.count, point.sum) for key, point in points.items()} == {
        ("chat", "input"): (3, 6), ("chat", "output"): (3, 60),
        ("text_completion", "input"): (2, 4), ("text_completion", "output"): (2, 40),
    }  # fmt: skip
    bounds = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
    assert all(tuple(point.explicit_bounds) == bounds for point in points.values())


def test_otlp_makes_up_no_token_counts_of_requests_that_failed(tmp_path: Path) -> None:
    telemetry = on_board("orin-nano", "jetson-orin-nano-8gb", tmp_path)
    reader = InMemoryMetricReader()
    stop = instrument(reader, telemetry.snapshot, telemetry.subscribe)
    telemetry.request().fail()
    telemetry.request().reject("invalid")
    data = reader.get_metrics_data()
    assert data is not None
    names = {metric.name for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    assert "gen_ai.server.request.duration" in names
    assert "gen_ai.client.token.usage" not in names
    stop()


@pytest.mark.parametrize(("history_bytes", "recorded"), [(0, False), (2**20, True)])
async def test_a_history_of_no_bytes_writes_nothing_to_the_disk(
    tmp_path: Path, script: Script, history_bytes: int, recorded: bool
) -> None:
    observation = ObservationSettings(history_bytes=history_bytes, record_seconds=0.05)
    settings = settings_for(tmp_path / "store", observation=observation)
    async with run_agent(settings, available_engines=only_fake, start_engine=script.start) as agent:
        await asyncio.to_thread(agent.observation.recorder.record)  # as the loop does at its start
    assert any((tmp_path / "store").rglob("*.ring")) is recorded


async def test_what_was_measured_while_nobody_listened_is_delivered_afterwards(
    observed: RunningAgent,
) -> None:
    async with grpc.aio.insecure_channel(str(observed.address)) as channel:
        stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)

        async def recorded(after: int) -> list[int]:
            request = telemetry_pb2.WatchTelemetryRequest(after_sequence=after, recorded_only=True)
            return [each.sequence async for each in stub.WatchTelemetry(request, timeout=TIMEOUT_SECONDS)]

        first: list[int] = []
        while len(first) < 3:
            await asyncio.sleep(0.02)
            first = await recorded(0)
        assert first == list(range(first[0], first[0] + len(first)))
        assert (await recorded(first[1]))[0] == first[2]
        live = stub.WatchTelemetry(
            telemetry_pb2.WatchTelemetryRequest(after_sequence=0), timeout=TIMEOUT_SECONDS
        )
        sequences = []
        async for each in live:
            sequences.append(each.sequence)
            if each.sequence == 0:
                break
        live.cancel()
        assert sequences[:3] == first[:3]
