"""A board's own measurements move the memory model, and predictions for that board say so."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgewright.errors import InputError, RefusedError
from edgewright.manifest import Manifest
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_agent.deployment.state import State
from edgewright_agent.services.translation.messages import release_to
from edgewright_agent.store import StagedRelease
from edgewright_builder.cli.main import app
from edgewright_builder.fit.board_points import (
    BoardCalibration,
    MeasuredPoint,
    board_file,
    load_board,
    point_from_basis,
    save_board,
)
from edgewright_builder.fit.board_refit import (
    calibration_for,
    check_point,
    measured_decodes,
    refit,
)
from edgewright_builder.fit.memory import Configuration, load_calibration, predict_memory
from edgewright_builder.fit.model_facts import find_model
from edgewright_profiles import load_profile
from tests.support.artifacts import FIELDS
from tests.support.device_simulator import Board, simulated_device

ENGINE, BOARD, RELEASE = "onnxruntime-genai", "jetson-orin-nano-8gb", b"\7" * 32
SHIPPED = load_calibration(ENGINE)
MIB = 2**20


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path / "data"))


def point(model: str, more_bytes: int, *, slope: float = 0.0, context: int = 1024) -> MeasuredPoint:
    """A release of `model` whose peak is `more_bytes`, and `slope` of its linear layers, over the prediction."""
    architecture = find_model(model).architecture
    m = Configuration(architecture.layers, 4, architecture.largest_group_size(), 8, context, 1)
    memory = predict_memory(architecture, m, SHIPPED)
    peak = memory.peak_bytes + more_bytes + round(slope * memory.linear_bytes)
    return MeasuredPoint(f"{model}-{context}", architecture, m, peak, "cgroup")


def measured(*points: MeasuredPoint) -> BoardCalibration:
    return BoardCalibration(BOARD, ENGINE, "0.18.0", points)


def predicted(point: MeasuredPoint, calibration: Any) -> int:
    return predict_memory(point.architecture, point.configuration, calibration).peak_bytes


@settings(deadline=None)
@given(st.integers(-50, 500), st.sampled_from(["smollm2-135m", "llama-3.2-1b", "qwen3-8b"]))
def test_after_one_point_only_the_constant_has_moved_and_that_point_is_predicted(
    more_mib: int, model: str
) -> None:
    one = point(model, more_mib * MIB)
    moved = refit(SHIPPED, measured(one))
    assert predicted(one, moved) == pytest.approx(one.measured_peak_bytes, rel=1e-6)
    assert moved.linear_copies == SHIPPED.linear_copies
    assert moved.error_fraction >= SHIPPED.error_fraction  # one point says nothing of its own error


@settings(deadline=None)
@given(st.integers(0, 300), st.floats(0, 1.5))
def test_points_of_several_sizes_recover_the_line_they_lie_on(shift_mib: int, slope: float) -> None:
    models = ["smollm2-135m", "smollm2-360m", "llama-3.2-1b"]
    points = [point(model, shift_mib * MIB, slope=slope) for model in models]
    moved = refit(SHIPPED, measured(*points))
    other = point("llama-3.2-3b", shift_mib * MIB, slope=slope)
    assert predicted(other, moved) == pytest.approx(other.measured_peak_bytes, rel=1e-3)
    assert moved.error_fraction <= 0.011


def test_points_that_disagree_widen_the_error() -> None:
    points = [
        point("smollm2-135m", more * MIB, context=context)
        for more, context in ((0, 512), (60, 1024), (0, 2048))
    ]
    assert refit(SHIPPED, measured(*points)).error_fraction > 0.1


def test_the_same_release_measured_again_replaces_its_point() -> None:
    first, again = point("smollm2-135m", 10 * MIB), point("smollm2-135m", 20 * MIB)
    assert measured(first).with_point(again).points == (again,)


def test_predictions_for_that_board_say_what_they_rest_on_and_others_do_not_change() -> None:
    one = point("smollm2-135m", 40 * MIB)
    save_board(measured(one))
    here, elsewhere = (
        calibration_for(ENGINE, load_profile(board)) for board in (BOARD, "jetson-agx-orin-64gb")
    )
    assert (elsewhere, here.machine, here.points) == (load_calibration(ENGINE, "aarch64"), BOARD, 1)
    result = CliRunner().invoke(
        app, ["check", "smollm2-135m", "--device", BOARD, "--engine", ENGINE, "--json"]
    )
    document = json.loads(result.stdout)
    assert document["plan"]["calibrated_on"] == (
        f"calibrated on this board, 1 measurement of {ENGINE} 0.18.0 on {BOARD}"
    )
    assert not any("not on this board" in sentence for sentence in document["caveats"])


def test_what_was_saved_is_what_is_loaded() -> None:
    points = measured(point("smollm2-135m", MIB), point("gemma-3-1b", 2 * MIB))
    save_board(points)
    assert load_board(ENGINE, BOARD) == points


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"schema_version": "other"}', '{"schema_version": 1, "points": 3}']
)
def test_a_damaged_calibration_is_one_sentence(text: str) -> None:
    path = board_file(ENGINE, BOARD)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match="is damaged"):
        calibration_for(ENGINE, load_profile(BOARD))


@pytest.mark.parametrize("peak_bytes", [0, MIB, 2**40])
def test_a_peak_that_cannot_be_the_releases_is_refused(peak_bytes: int) -> None:
    one = replace(point("llama-3.2-1b", 0), measured_peak_bytes=peak_bytes)
    with pytest.raises(RefusedError, match="can't be this release's"):
        check_point(SHIPPED, one)


@pytest.fixture
def board() -> Board:
    """A board that serves SmolLM2 and has measured 30 MiB more than was predicted."""
    one = point("smollm2-135m", 30 * MIB)
    basis = {"architecture": asdict(one.architecture), "configuration": asdict(one.configuration)}
    release = deployment.Release(release=RELEASE, engine=ENGINE, prediction_basis=json.dumps(basis))
    memory = telemetry.Memory(engine_peak_bytes=one.measured_peak_bytes, engine_measure="cgroup")
    snapshot = telemetry.Snapshot(
        active_release=RELEASE, serving=telemetry.Serving(requests=9), memory=memory
    )
    return Board(engine=ENGINE, active=RELEASE, releases=[release], snapshots=[snapshot])


@pytest.fixture
def host(board: Board) -> Iterator[str]:
    """The board served by another thread, as the command brings its own event loop."""
    addresses: list[str] = []
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with simulated_device(board) as address:
            addresses.append(str(address))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(10)
    yield addresses[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def calibrate(host: str, *options: str) -> Any:
    return CliRunner().invoke(app, ["calibrate", host, "--insecure", *options])


def test_calibrate_reads_the_board_saves_the_point_and_says_how_far_off_it_was(host: str) -> None:
    result = calibrate(host)
    assert result.exit_code == 0, result.exception
    assert "measured" in result.stdout
    assert "now rest on 1 measurement" in result.stdout
    moved = calibration_for(
        ENGINE, load_profile("this-host")
    )  # the profile the simulated agent was started with
    assert moved.constant_bytes == pytest.approx(SHIPPED.constant_bytes + 30 * MIB, rel=1e-6)
    assert moved.engine_version == "1"
    assert json.loads(calibrate(host, "--json").stdout)["points"] == 1


def test_calibrate_has_the_board_use_its_whole_context_first_unless_told_not_to(
    board: Board, host: str
) -> None:
    calibrate(host, "--as-served")
    assert board.benchmark_requests == []
    calibrate(host)
    request, timed = board.benchmark_requests
    assert request.input_tokens + request.output_tokens == 1024  # of the release's plan
    assert (request.concurrency, request.prompts) == (1, 2)  # the second finds the cache full
    assert (timed.concurrency, timed.output_tokens) == (1, 128)  # and then one at a time, for its speed


def timed(tpot_seconds: float, **energy: Any) -> telemetry.RunBenchmarkResponse:
    """A benchmark's last word."""
    spread = telemetry.Distribution(count=3, p50=tpot_seconds)
    result = telemetry.BenchmarkResult(
        input_tokens=32, output_tokens=128, time_per_output_token_seconds=spread
    )
    if energy:
        phases = telemetry.PhaseEnergy(prompts=3, decode_joules_per_output_token=0.25)
        result.energy.CopyFrom(telemetry.BenchmarkEnergy(rail="VDD_IN", phases=phases, **energy))
    return telemetry.RunBenchmarkResponse(result=result)


@pytest.mark.parametrize(
    ("energy", "joules_per_token", "says"),
    [
        ({"whole_module": True}, 0.25, "20.0 tokens/s, 0.25 J a token"),
        ({"whole_module": False}, None, "20.0 tokens/s, its energy is not measured"),
        ({}, None, "20.0 tokens/s, its energy is not measured"),
    ],
)
def test_calibrate_learns_how_fast_and_at_what_energy_a_board_decodes(
    board: Board, host: str, energy: dict[str, Any], joules_per_token: float | None, says: str
) -> None:
    board.benchmark.append(timed(0.05, **energy))
    board.snapshots[0].power_mode = "15W"
    printed = calibrate(host).stdout
    assert f"One request alone at 15W: {says}." in printed
    (decode,) = measured_decodes(ENGINE, "this-host")
    assert (decode.tpot_seconds, decode.joules_per_token, decode.power_mode) == (
        0.05,
        joules_per_token,
        "15W",
    )
    asked = ["check", "smollm2-135m", "--device", "this-host", "--engine", ENGINE]
    told = CliRunner().invoke(app, asked).stdout
    assert "20.0 tokens/s measured on this board" in told
    assert "at 15W" in told
    assert (" J a token" in told) is (joules_per_token is not None)


def test_a_board_that_could_not_be_timed_keeps_the_speed_it_had(board: Board, host: str) -> None:
    board.benchmark.append(timed(0.05))
    calibrate(host)
    before = measured_decodes(ENGINE, "this-host")
    board.benchmark[:] = [timed(0.0)]  # no request got as far as a second token
    assert calibrate(host).exit_code == 0
    assert measured_decodes(ENGINE, "this-host") == before


def test_a_calibration_of_before_speed_was_measured_is_still_read() -> None:
    file = save_board(measured(point("smollm2-135m", MIB)))
    document = json.loads(file.read_text())
    del document["points"][0]["decode"]
    file.write_text(json.dumps(document))
    assert load_board(ENGINE, BOARD) == measured(point("smollm2-135m", MIB))
    assert measured_decodes(ENGINE, BOARD) == ()


def nothing_active(board: Board) -> None:
    board.active = board.snapshots[0].active_release = b""


def no_peak(board: Board) -> None:
    board.snapshots[0].memory.ClearField("engine_peak_bytes")


def no_request(board: Board) -> None:
    board.snapshots[0].serving.requests = 0


def old_manifest(board: Board) -> None:
    board.releases[0].prediction_basis = ""


def nonsense_basis(board: Board) -> None:
    board.releases[0].prediction_basis = '{"architecture": {"layers": 3}, "configuration": {}}'


def impossible_peak(board: Board) -> None:
    board.snapshots[0].memory.engine_peak_bytes = 1


def other_engine(board: Board) -> None:
    board.releases[0].engine = "fake"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (nothing_active, "serves no release"),
        (no_peak, "has not measured its engine's peak"),
        (no_request, "has served no request"),
        (old_manifest, "does not say which architecture"),
        (nonsense_basis, "does not say which architecture"),
        (impossible_peak, "can't be this release's"),
        (other_engine, "no memory calibration for the engine 'fake'"),
    ],
)
def test_garbage_is_refused_in_one_sentence_and_nothing_is_saved(
    board: Board, host: str, spoil: Any, says: str
) -> None:
    spoil(board)
    result = calibrate(host)
    assert isinstance(result.exception, (RefusedError, InputError))
    assert says in str(result.exception)
    assert not board_file(ENGINE, "this-host").exists()


def test_an_agent_tells_what_a_releases_prediction_was_computed_from(tmp_path: Path) -> None:
    one = point("smollm2-135m", 0)
    lineage = {
        "architecture": asdict(one.architecture),
        "configuration": asdict(one.configuration),
        "other": 1,
    }
    manifest = Manifest.model_validate(
        {
            **FIELDS,
            "lineage": lineage,
            "files": [{"path": "a", "sha256": "0" * 64, "size_bytes": 0, "chunks": []}],
        }
    )
    sent = release_to(StagedRelease("7" * 64, manifest, tmp_path), State())
    basis = json.loads(sent.prediction_basis)
    assert point_from_basis("x", basis, one.measured_peak_bytes, "cgroup") == replace(one, release="x")
