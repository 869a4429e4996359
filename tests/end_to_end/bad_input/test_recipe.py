"""A wrong recipe, board or budget is refused in one sentence before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.bad_input.saying import (
    INPUT,
    REFUSED,
    assert_says,
    build,
    variant,
)

SERVED = {"endpoint": "http://127.0.0.1:9/v1", "api_key_env": "NO_SUCH_KEY"}


def test_an_unknown_device_is_answered_with_the_nearest(recipe: Path, tmp_path: Path) -> None:
    done = build(recipe, tmp_path / "run", "--device", "jetson-orin-nano-8g")
    assert_says(done, INPUT, "'jetson-orin-nano-8g'", "did you mean jetson-orin-nano-8gb")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda values: values["search"].update(trails=4), ["unknown key `search.trails`", "`trials`?"]),
        (lambda values: values["search"].update(trials="many"), ["`search.trials` is 'many'", "integer"]),
        (lambda values: values["student"].update(depth="half"), ["`student.depth` is 'half'", "'auto'"]),
        (lambda values: values["student"].update(drop_layers=[4]), ["layer 4", "layers 0 to 3"]),
        (lambda values: values.pop("teachers"), ["the key `teachers` is missing"]),
        (lambda values: values["evaluate"].update(tasks=["arc_hard"]), ["Unknown task 'arc_hard'"]),
        (lambda values: values.update(recover={"data": "gone.txt"}), ["gone.txt can't be read as text"]),
        (
            lambda values: values["teachers"]["knowledge"].update(SERVED),
            ["`teachers.knowledge.api_key_env` is NO_SUCH_KEY"],
        ),
    ],
    ids=["unknown-key", "type", "choice", "layer", "missing-key", "task", "general-text", "teacher's key"],
)
def test_a_wrong_recipe_names_the_key_and_the_value(
    recipe: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], parts: list[str]
) -> None:
    done = build(variant(recipe, tmp_path, change), tmp_path / "run")
    assert_says(done, INPUT, *parts)
    assert not (tmp_path / "run").exists()


def test_a_budget_that_nothing_meets_is_answered_with_the_smallest_that_does(
    recipe: Path, tmp_path: Path
) -> None:
    done = build(recipe, tmp_path / "run", "--budget", "1MiB")
    assert_says(done, REFUSED, "budget of 1.0 MiB", "The smallest needs", "3 of 4 layers", "expected loss of")
    assert not (tmp_path / "run").exists()
