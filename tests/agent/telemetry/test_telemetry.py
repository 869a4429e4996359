from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.v1 import telemetry_pb2
from edgewright_agent.engines import EngineMemory
from edgewright_agent.telemetry.proto import energy_window_to_proto, snapshot_to_proto
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry.serving import distribution
from edgewright_profiles import load_profile
from tests.fixtures.boards import write, write_board


class Clock:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def on_board(board: str, profile: str, root: Path, clock: Clock) -> Telemetry:
    budget_bytes = load_profile(profile).budget_bytes()
    return Telemetry(load_profile(profile), write_board(board, root), budget_bytes=budget_bytes, clock=clock)


def run(telemetry: Telemetry, clock: Clock, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        clock.advance(0.1)
        telemetry.sample()


@pytest.fixture
def orin_nano(tmp_path: Path, clock: Clock) -> Telemetry:
    return on_board("orin-nano", "jetson-orin-nano-8gb", tmp_path, clock)


def test_a_snapshot_of_an_orin_nano_holds_all_it_has(orin_nano: Telemetry, clock: Clock) -> None:
    orin_nano.sample()
    run(orin_nano, clock, 2.0)
    snapshot = orin_nano.snapshot()
    module = snapshot.energy[0]
    assert (module.name, module.source, module.whole_module) == ("VDD_IN", "ina3221", True)
    assert module.joules == pytest.approx(5.056 * 2.0)
    assert module.watts == pytest.approx(5.056)
    assert (module.samples, module.gaps) == (21, 0)
    assert [rail.whole_module for rail in snapshot.energy] == [True, False, False]
    assert snapshot.power_mode == "MAXN_SUPER"
    assert snapshot.gpu_load_ratio == pytest.approx(0.733)
    assert snapshot.memory is not None
    assert snapshot.memory.budget_bytes == load_profile("jetson-orin-nano-8gb").budget_bytes()
    assert snapshot.memory.engine is None


@pytest.mark.parametrize(
    ("board", "profile", "rail", "watts"),
    [
        ("agx-orin", "jetson-agx-orin-64gb", "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", 11.39488),
        ("thor", "jetson-agx-thor-t5000", "VIN", 30.024),
        ("nano-l4t32", "jetson-nano-4gb", "POM_5V_IN", 2.543),
    ],
)
def test_each_board_has_its_own_whole_module_rail(
    tmp_path: Path, clock: Clock, board: str, profile: str, rail: str, watts: float
) -> None:
    telemetry = on_board(board, profile, tmp_path, clock)
    run(telemetry, clock, 1.5)
    best = telemetry.energy()
    assert best is not None
    assert (best.name, best.whole_module) == (rail, True)
    assert best.watts == pytest.approx(watts)


def test_rapl_wraps_and_is_not_the_whole_module(tmp_path: Path, clock: Clock) -> None:
    telemetry = on_board("x86-rapl", "n100-mini-pc", tmp_path, clock)
    telemetry.sample()
    clock.advance(0.1)
    # 262143.32885 J is the counter's range, 262143.0 J where it stood.
    write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", 671150)
    telemetry.sample()
    package = telemetry.snapshot().energy[0]
    assert package.joules == pytest.approx(1.0)
    assert not package.whole_module
    best = telemetry.energy()
    assert best is not None
    assert best.name == "psys"


def test_a_board_without_sensors_has_no_energy_and_says_so(tmp_path: Path, clock: Clock) -> None:
    telemetry = on_board("raspberry-pi-5", "raspberry-pi-5-8gb", tmp_path, clock)
    run(telemetry, clock, 1.0)
    message = snapshot_to_proto(telemetry.snapshot())
    assert len(message.energy) == 0
    assert not message.HasField("power_mode")
    assert not message.HasField("gpu_load_ratio")
    absent = {sensor.name for sensor in message.sensors if not sensor.available}
    assert {"ina3221", "ina238", "rapl", "nvml", "gpu_load", "power_mode"} <= absent


def test_request_latencies_are_those_of_the_clock(orin_nano: Telemetry, clock: Clock) -> None:
    window = orin_nano.request()
    clock.advance(0.5)
    window.token()
    for _ in range(4):
        clock.advance(0.1)
        window.token()
    summary = window.end(prompt_tokens=12, generated_tokens=5)
    assert summary.time_to_first_token_seconds == pytest.approx(0.5)
    assert summary.time_per_output_token_seconds == pytest.approx(0.1)
    serving = orin_nano.serving()
    assert (serving.requests, serving.requests_in_flight) == (1, 0)
    assert (serving.prompt_tokens, serving.generated_tokens) == (12, 5)
    assert serving.inter_token_latency_seconds.count == 4
    assert serving.inter_token_latency_seconds.max == pytest.approx(0.1)


def test_tokens_are_counted_as_they_come_and_at_the_end_as_the_engine_counts(orin_nano: Telemetry) -> None:
    window, broken = orin_nano.request(), orin_nano.request()
    for request in (window, window, broken):
        request.token()
    assert orin_nano.serving().generated_tokens == 3
    window.end(prompt_tokens=12, generated_tokens=4)  # two of them came in one piece
    broken.fail()
    assert orin_nano.serving().generated_tokens == 5


def test_energy_is_split_at_the_first_token(orin_nano: Telemetry, tmp_path: Path, clock: Clock) -> None:
    orin_nano.sample()
    run(orin_nano, clock, 1.0)
    window = orin_nano.request()
    run(orin_nano, clock, 2.0)
    window.token()
    write(tmp_path, "sys/class/hwmon/hwmon1/curr1_input", 2000)
    run(orin_nano, clock, 3.0)
    window.token()
    energy = window.end(prompt_tokens=1).energy
    assert energy is not None
    assert energy.rail == "VDD_IN"
    assert energy.prefill_joules == pytest.approx(5.056 * 2.0)
    # The step from 1 A to 2 A is one trapezoid of 0.1 s.
    assert energy.decode_joules == pytest.approx(10.112 * 3.0 - 5.056 * 0.1 / 2)
    assert energy_window_to_proto(energy).decode_joules == energy.decode_joules


def test_a_request_without_sensors_or_tokens_has_no_energy(
    tmp_path: Path, clock: Clock, orin_nano: Telemetry
) -> None:
    bare = on_board("raspberry-pi-5", "raspberry-pi-5-8gb", tmp_path / "pi", clock)
    window = bare.request()
    window.token()
    assert window.end().energy is None
    summary = orin_nano.request().end()
    assert summary.time_to_first_token_seconds is None
    assert summary.energy is None


def test_failed_and_rejected_requests_are_counted_apart(orin_nano: Telemetry) -> None:
    running, failed, rejected = orin_nano.request(), orin_nano.request(), orin_nano.request()
    assert orin_nano.serving().requests_in_flight == 3
    failed.fail()
    failed.end()
    rejected.reject("busy")
    rejected.fail()
    serving = orin_nano.serving()
    assert (serving.requests, serving.requests_failed, serving.requests_rejected) == (2, 1, 1)
    assert serving.requests_in_flight == 1
    running.end()
    assert orin_nano.serving().requests_in_flight == 0


def test_a_new_release_starts_from_zero(orin_nano: Telemetry) -> None:
    old = orin_nano.request()
    orin_nano.reset_serving()
    assert orin_nano.requests_in_flight == 1
    old.token()
    old.end(prompt_tokens=5)
    serving = orin_nano.serving()
    assert (serving.requests, serving.requests_in_flight, serving.generated_tokens) == (0, 0, 0)
    assert orin_nano.requests_in_flight == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_lie_in_order_within_the_values(values: list[float]) -> None:
    found = distribution(values)
    assert found.count == len(values)
    assert min(values) <= found.p50 <= found.p90 <= found.p99 <= found.max == max(values)
    assert found.mean == pytest.approx(sum(values) / len(values))


def test_distributions_hold_the_last_thousand_values(orin_nano: Telemetry, clock: Clock) -> None:
    window = orin_nano.request()
    for token in range(1502):
        clock.advance(9.0 if token < 501 else 0.01)
        window.token()
    latency = orin_nano.serving().inter_token_latency_seconds
    assert latency.count == 1000
    assert latency.max == pytest.approx(0.01)


def test_peak_use_of_the_board_outlives_the_use(orin_nano: Telemetry, tmp_path: Path, clock: Clock) -> None:
    orin_nano.sample()
    write(tmp_path, "proc/meminfo", "MemTotal: 7802880 kB\nMemAvailable: 1000000 kB")
    run(orin_nano, clock, 0.1)
    write(tmp_path, "proc/meminfo", "MemTotal: 7802880 kB\nMemAvailable: 7000000 kB")
    run(orin_nano, clock, 0.1)
    memory = orin_nano.snapshot().memory
    assert memory is not None
    assert memory.used_peak_bytes == 6802880 * 1024
    assert memory.available_bytes == 7000000 * 1024


def test_engine_memory_comes_from_its_owner(orin_nano: Telemetry) -> None:
    orin_nano.set_engine_memory_source(lambda: EngineMemory(5, 9, "pss"))
    message = snapshot_to_proto(orin_nano.snapshot(), release="5a")
    assert (message.memory.engine_bytes, message.memory.engine_peak_bytes) == (5, 9)
    assert (message.memory.engine_measure, message.active_release) == ("pss", b"\x5a")
    orin_nano.set_engine_memory_source(None)
    assert not snapshot_to_proto(orin_nano.snapshot()).memory.HasField("engine_bytes")


def test_a_snapshot_becomes_its_message_field_for_field(orin_nano: Telemetry, clock: Clock) -> None:
    run(orin_nano, clock, 1.0)
    snapshot = orin_nano.snapshot()
    message = snapshot_to_proto(snapshot)
    assert {field.name for field, _ in message.ListFields()} == {
        field.name for field in telemetry_pb2.Snapshot.DESCRIPTOR.fields
    } - {"active_release"}
    assert [rail.name for rail in message.energy] == [rail.name for rail in snapshot.energy]
    assert message.memory.total_bytes == 7802880 * 1024
    assert message.clocks[2].hertz == 918_000_000


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Telemetry]:
    root = write_board("orin-nano", tmp_path)
    telemetry = Telemetry(load_profile("jetson-orin-nano-8gb"), root)
    telemetry.start()
    yield telemetry
    telemetry.stop()


def until_sampled(running: Telemetry, samples: int) -> int:
    """Waits for so many samples of the module's power; returns how many there are."""
    end = time.monotonic() + 60
    while (module := running.energy()) is None or module.samples < samples:
        assert time.monotonic() < end
        time.sleep(0.01)
    return module.samples


def test_the_thread_samples_at_ten_hertz_and_stops(running: Telemetry) -> None:
    began = time.monotonic()
    samples = until_sampled(running, 10)
    seconds = time.monotonic() - began
    assert samples <= 10 * seconds + 2  # a busy machine takes fewer
    module = running.energy()
    assert module is not None
    assert 0 < module.joules <= 5.056 * (time.monotonic() - began + 0.2)
    running.stop()
    running.stop()
    assert not any(thread.name == "telemetry" for thread in threading.enumerate())


def test_sampling_costs_little(running: Telemetry) -> None:
    sampler = next(thread for thread in threading.enumerate() if thread.name == "telemetry")
    assert sampler.ident is not None
    clock = time.pthread_getcpuclockid(sampler.ident)
    first, before = until_sampled(running, 2), time.clock_gettime(clock)
    last = until_sampled(running, 20)
    assert (time.clock_gettime(clock) - before) / (last - first) < 0.05 * 0.1  # of a tenth of a second


def test_the_agents_own_memory_is_reported(running: Telemetry) -> None:
    memory = running.snapshot().memory
    assert memory is not None
    assert memory.agent_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


def test_telemetry_needs_neither_torch_nor_numpy_nor_the_builder() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'numpy', 'edgewright_builder'): sys.modules[name] = None\n"
        "import edgewright_agent.benchmark.benchmark, edgewright_agent.telemetry.proto, edgewright_agent.doctor.probe\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
