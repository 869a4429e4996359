"""What a shape takes on the board is held against the prediction's error bar, with the whole context in use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from virtual_board.memory import Fit, board_calibration, case_of, filled, load, save, table_of
from virtual_board.needs import NeedError
from virtual_board.settings import MODEL_SHAPES

from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.memory import load_calibration

ENGINE = "onnxruntime-genai"
SHIPPED = load_calibration(ENGINE, "aarch64")


def fit(shape: str, of_predicted: float) -> Fit:
    """The board took so much of what is predicted."""
    case = case_of(shape, None, 256)
    nothing = Fit(case.model, case.architecture, case.configuration, 0, 0)
    return replace(nothing, board_bytes=round(of_predicted * nothing.predicted(SHIPPED)[0]))


@pytest.mark.parametrize(("errors", "is_within"), [(-1.1, False), (-0.9, True), (0.9, True), (1.1, False)])
def test_a_peak_is_right_within_the_error_bar_alone(errors: float, is_within: bool) -> None:
    assert fit("135m", 1 + errors * SHIPPED.error_fraction).is_within() == is_within


def test_the_table_says_what_one_calibration_on_the_board_makes_of_the_others() -> None:
    first, second = fit("135m", 0.9), fit("360m", 0.95)
    rows = table_of([first, second]).splitlines()[2:]
    assert rows[0].endswith("| +11.1% | – | – |")
    peak, _ = second.predicted(board_calibration(first))
    assert rows[1].endswith(
        f"| +5.3% | {peak / 2**20:.1f} ± {0.045 * peak / 2**20:.1f} | {peak / second.board_bytes - 1:+.1%} |"
    )


def test_a_measurement_that_was_interrupted_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    assert load(file) == []
    fits = [fit("135m", 0.9), fit("1b", 1.0)]
    save(fits, file)
    assert load(file) == fits


@pytest.mark.parametrize("shape", list(MODEL_SHAPES))
def test_a_shape_is_the_one_that_a_plan_would_build(shape: str) -> None:
    case = case_of(shape, layers=None, context_tokens=256)
    assert case.configuration.layers == case.architecture.layers
    assert case.configuration.group_size == engine_traits(ENGINE).plan_group_sizes(case.architecture)[0]


def test_a_prompt_that_leaves_the_context_empty_is_no_measurement() -> None:
    assert filled(json.dumps({"peak": 1, "prompt_tokens": 500}), 512)["peak"] == 1
    with pytest.raises(NeedError, match="300 tokens"):
        filled(json.dumps({"peak": 1, "prompt_tokens": 300}), 512)
