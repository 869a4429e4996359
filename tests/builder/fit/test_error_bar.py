"""How far the shipped calibration is off the measurements it rests on, derived again without an engine."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from edgewright_builder.fit.calibration_constants import fit_calibration
from edgewright_builder.fit.error_bar import errors, leave_one_model_out
from edgewright_builder.fit.measured_peaks import load_measurements
from edgewright_builder.fit.memory import load_calibration, predict_memory

ENGINES = ("onnxruntime-genai", "llama.cpp")
CALIBRATION, POINTS = load_calibration(ENGINES[0]), load_measurements(ENGINES[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_predicted_peak_is_within_3_percent_in_the_median_and_8_at_worst(engine: str) -> None:
    points = load_measurements(engine)
    assert len(points) >= 12
    sizes = [abs(error) for error in errors(load_calibration(engine), points)]
    assert statistics.median(sizes) <= 0.03
    assert max(sizes) <= 0.08


def test_the_calibration_names_the_runtime_as_boards_do() -> None:
    """Boards tell ONNX Runtime's version, whose worker serves; the exporter's is another's."""
    assert CALIBRATION.engine_version == "1.32.0"


@pytest.mark.parametrize(("engine", "models"), [("onnxruntime-genai", 5), ("llama.cpp", 4)])
def test_a_model_that_was_not_measured_is_predicted_within_10_percent(engine: str, models: int) -> None:
    found = leave_one_model_out(load_calibration(engine), load_measurements(engine))
    assert len(found) >= models
    assert max(abs(error) for model_errors in found.values() for error in model_errors) <= 0.10


@pytest.mark.parametrize("engine", ENGINES)
def test_the_shipped_constants_are_those_the_points_give(engine: str) -> None:
    shipped, points = load_calibration(engine), load_measurements(engine)
    again = fit_calibration(shipped, points)
    assert again.constant_bytes == pytest.approx(shipped.constant_bytes, rel=1e-3)
    assert again.linear_copies == pytest.approx(shipped.linear_copies, rel=1e-3)
    assert shipped.points == len(points)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_error_bar_holds_for_every_point(engine: str) -> None:
    calibration = load_calibration(engine)
    assert all(
        abs(error) <= calibration.error_fraction for error in errors(calibration, load_measurements(engine))
    )


def test_on_aarch64_nothing_is_fitted_and_the_error_bar_holds() -> None:
    """Its kernels add no block sums and its Linux maps less of a file: all else is as measured on x86-64."""
    calibration = load_calibration(ENGINES[0], "aarch64")
    same = {
        "machine": CALIBRATION.machine,
        "points": CALIBRATION.points,
        "block_sums": 1.0,
        "file_page_bytes": 327_680,
    }
    assert replace(calibration, **same) == CALIBRATION  # type: ignore[arg-type]
    points = load_measurements(f"{ENGINES[0]}.aarch64")
    assert len(points) == calibration.points == 3
    assert all(abs(error) <= 0.02 for error in errors(calibration, points))


def test_an_engine_that_was_measured_on_x86_64_alone_has_one_calibration() -> None:
    assert load_calibration("llama.cpp", "aarch64") == load_calibration("llama.cpp")


def test_the_engine_keeps_the_weights_it_multiplies_with_once() -> None:
    assert CALIBRATION.linear_copies < 1.2
    assert CALIBRATION.embedding_copies < 1.3


@pytest.mark.parametrize("model", ["llama-3.2-1b", "llama-3.2-3b"])
def test_at_rest_the_engine_takes_at_most_1_35_times_weights_and_cache(model: str) -> None:
    """PSS less nothing for the interpreter, which is stricter than "beyond the bare interpreter"."""
    points = [
        point for point in POINTS if point.model == model
        and point.configuration.layers == point.architecture.layers
    ]  # fmt: skip
    assert points
    for point in points:
        memory = predict_memory(point.architecture, point.configuration, CALIBRATION)
        ideal = memory.weights_bytes + memory.kv_cache_bytes
        assert point.peak_bytes <= 1.35 * ideal, point.peak_bytes / ideal


def test_rules_of_thumb_are_far_worse() -> None:
    predicted = [predict_memory(point.architecture, point.configuration, CALIBRATION) for point in POINTS]
    thumb = [1.2 * m.weights_bytes / p.peak_bytes - 1 for m, p in zip(predicted, POINTS, strict=True)]
    constant = [(m.weights_bytes + 500e6) / p.peak_bytes - 1 for m, p in zip(predicted, POINTS, strict=True)]
    assert max(abs(error) for error in thumb) > 0.4
    assert max(abs(error) for error in constant) > 0.4
