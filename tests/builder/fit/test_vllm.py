"""The memory of vLLM: predicted where it is asked for, with what was measured."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from edgewright_builder.cli.main import app
from edgewright_builder.fit.error_bar import errors
from edgewright_builder.fit.measured_peaks import load_measurements
from edgewright_builder.fit.memory import load_calibration, predict_memory

ORIN = "jetson-orin-nano-8gb"


def test_the_measured_points_are_predicted_within_the_error_that_is_told() -> None:
    calibration, points = load_calibration("vllm"), load_measurements("vllm")
    assert len(points) == calibration.points >= 2
    assert max(map(abs, errors(calibration, points))) <= calibration.error_fraction


def test_embedding_and_kv_cache_are_counted_in_16_bits() -> None:
    point = load_measurements("vllm")[0]
    model, m = point.architecture.with_layers(point.configuration.layers), point.configuration
    memory = predict_memory(point.architecture, m, load_calibration("vllm"))
    assert memory.embedding_bytes == 2 * model.embedding_parameters
    assert memory.kv_cache_bytes == 2 * model.kv_elements(m.context_tokens) * m.concurrency


def test_a_prediction_for_vllm_says_that_it_rests_on_the_cpu_build() -> None:
    result = CliRunner().invoke(
        app, ["check", "smollm2-135m", "--device", ORIN, "--engine", "vllm", "--json"]
    )
    assert result.exit_code in (0, 1), result.output
    document = json.loads(result.stdout)
    assert "CPU build" in json.dumps(document)


def test_a_plan_compares_vllm_only_where_it_is_asked_for() -> None:
    arguments = ["plan", "smollm2-135m", "--device", ORIN, "--budget", "3GiB", "--json"]
    of_its_own = CliRunner().invoke(app, arguments)
    asked = CliRunner().invoke(app, [*arguments, "--engine", "vllm"])
    assert '"vllm"' not in of_its_own.stdout
    assert '"vllm"' in asked.stdout
