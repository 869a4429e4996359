"""`edgewright telemetry` and `top`: every figure with its unit, and none that no sensor gave."""

from __future__ import annotations

import io
import json

from rich.console import Console

from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_builder.python_api.results.board import status_of
from edgewright_builder.python_api.results.telemetry import TelemetrySnapshot, snapshot_of
from edgewright_builder.show.top import History, render
from tests.support.commands import output
from tests.support.device_simulator import Board


def snapshot() -> telemetry.Snapshot:
    times = telemetry.Distribution(count=4, mean=0.02, p50=0.02, p90=0.03, p99=0.03, max=0.031)
    return telemetry.Snapshot(
        active_release=b"\1" * 32,
        serving=telemetry.Serving(requests=4, generated_tokens=64, time_to_first_token_seconds=times),
        memory=telemetry.Memory(total_bytes=8 << 30, available_bytes=5 << 30, budget_bytes=4 << 30),
        sensors=[telemetry.Sensor(name="ina3221", detail="no such chip")],
    )


def test_telemetry_without_a_sensor_says_so_and_gives_no_number(board: Board, host: str) -> None:
    board.snapshots = [snapshot()]
    lines = output("telemetry", host, "--insecure").splitlines()
    assert "  energy: no energy sensor" in lines
    assert "  no ina3221: no such chip" in lines
    assert "  TTFT: p50 20.0 ms, p90 30.0 ms, p99 30.0 ms, max 31.0 ms" in lines
    assert not any("watt" in line.lower() or "engine memory" in line or "TPOT" in line for line in lines)


def test_following_telemetry_in_json_is_a_document_a_line(board: Board, host: str) -> None:
    board.snapshots = [snapshot(), snapshot()]
    lines = output("telemetry", host, "--insecure", "--follow", "--json").splitlines()
    assert [json.loads(line)["serving"]["requests"] for line in lines] == [4, 4]


def test_recorded_telemetry_has_a_number_and_a_time_a_line(host: str, board: Board) -> None:
    board.snapshots = [snapshot()]
    line = output("telemetry", host, "--insecure", "--recorded-after", 0)
    assert line.startswith("1 1970-01-01 00:00:00Z · 4 requests")


def test_requests_that_are_in_flight_are_not_done(host: str, board: Board) -> None:
    in_flight = snapshot()
    in_flight.serving.requests_in_flight = 4
    board.snapshots = [in_flight]
    text = output("telemetry", host, "--insecure")
    assert "4 accepted, 4 in flight, 0 failed, 0 rejected" in text


def test_top_shows_one_board_on_one_screen(host: str, board: Board) -> None:
    board.snapshots = [snapshot()] * 3
    text = output("top", host, "--insecure", "--screens", 1)
    assert host in text
    assert "tokens/s" in text
    assert "engine" in text
    assert "no energy sensor" in text


def busy_snapshot(seconds: float, tokens: int) -> TelemetrySnapshot:
    module = telemetry.EnergyRail(name="A+B", whole_module=True, joules=90, watts=7.5)
    message = telemetry.Snapshot(
        monotonic_seconds=seconds, power_mode="25W", gpu_load_ratio=0.4,
        serving=telemetry.Serving(requests=2, requests_in_flight=1, generated_tokens=tokens),
        memory=telemetry.Memory(
            total_bytes=8 << 30, available_bytes=6 << 30, budget_bytes=400 << 20, engine_bytes=100 << 20,
            engine_peak_bytes=390 << 20,
        ),
        energy=[telemetry.EnergyRail(name="A", joules=30, watts=2.5), module, telemetry.EnergyRail(name="B")],
        temperatures=[telemetry.Temperature(zone="tj", celsius=61.5)],
        clocks=[
            *(telemetry.Clock(unit=f"cpu{core}", hertz=1_700_000_000) for core in range(4)),
            telemetry.Clock(unit="cpu4", hertz=700_000_000), telemetry.Clock(unit="gpu", hertz=900_000_000),
        ],
    )  # fmt: skip
    return snapshot_of(message)


def test_top_shows_rates_watts_heat_clocks_and_memory_against_the_budget() -> None:
    history = History()
    for second in range(3):
        history.add(busy_snapshot(float(second), 20 * second))
    device = deployment.GetDeviceResponse(profile_id="orin", phase=deployment.PHASE_PROBATION)
    screen = Console(width=160, record=True, file=io.StringIO())
    screen.print(render("b:1", status_of(device, []), busy_snapshot(2.0, 40), history))
    text = screen.export_text()
    assert "probation" in text
    assert "power mode 25W" in text
    assert "20.0 tokens/s" in text
    assert "25%  100.0 MiB" in text
    assert "98%  390.0 MiB" in text
    for line in (
        "sum of 2 7.50 W",
        "A 2.50 W",
        "B no answer",
        "tj 61.5 °C",
        "cpu0-3 1700 MHz",
        "cpu4 700 MHz",
    ):
        assert line in " ".join(text.split())
    assert text.index("sum of 2") < text.index("2.50 W")  # the whole board first
    assert list(history.watts) == [7.5] * 3


def test_a_counter_that_fell_belongs_to_another_release_and_gives_no_rate() -> None:
    history = History()
    for second, tokens in enumerate((100, 110, 0, 10)):
        history.add(busy_snapshot(float(second), tokens))
    assert list(history.tokens_per_second) == [10.0, 10.0]
