"""What a shape takes on the board is held against the prediction's error bar, with the whole context in use."""

from __future__ import annotations

import json

import pytest
from virtual_board.memory import MIB, SHAPES, Fit, case_of, filled, table_of
from virtual_board.needs import NeedError

from edgewright_builder.fit.engines import engine_traits


def fit(board_mib: float) -> Fit:
    return Fit("smollm2-135m", 30, 512, 270 * MIB, 12 * MIB, 269 * MIB, round(board_mib * MIB))


@pytest.mark.parametrize(("board_mib", "is_within"), [(257, False), (259, True), (281, True), (283, False)])
def test_a_peak_is_right_within_the_error_bar_alone(board_mib: float, is_within: bool) -> None:
    assert fit(board_mib).is_within == is_within


def test_the_table_says_both_peaks_and_the_error() -> None:
    row = table_of([fit(260)]).splitlines()[-1]
    assert row == "| smollm2-135m | 30 | 512 | 270.0 ± 12.0 | 269.0 | 260.0 | +3.8% |"


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_shape_is_the_one_that_a_plan_would_build(shape: str) -> None:
    case = case_of(shape, layers=None, context_tokens=256)
    assert case.configuration.layers == case.architecture.layers
    assert (
        case.configuration.group_size
        == engine_traits("onnxruntime-genai").plan_group_sizes(case.architecture)[0]
    )


def test_a_prompt_that_leaves_the_context_empty_is_no_measurement() -> None:
    assert filled(json.dumps({"peak": 1, "prompt_tokens": 500}), 512)["peak"] == 1
    with pytest.raises(NeedError, match="300 tokens"):
        filled(json.dumps({"peak": 1, "prompt_tokens": 300}), 512)
