"""A build never reads what it clears itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import InputError
from edgewright_builder.pipeline.inputs_in_own_run import refuse_own_products
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
from edgewright_builder.recipe.model_recipe import Recipe

RECIPE: dict[str, Any] = {
    "name": "x", "task": "t", "student": {"model": "a/b"}, "teachers": {"knowledge": {"model": "c/d"}},
    "data": {"file": "mine.jsonl"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("data.file", {"data": {"file": "run/data/data.jsonl"}}),
        ("student.model", {"student": {"model": "run/finetune/model"}}),
        ("teachers.knowledge.model", {"teachers": {"knowledge": {"model": "run/student/model"}}}),
        ("quantize.delta_from", {"quantize": {"delta_from": "run"}}),
        ("quantize.delta_from", {"quantize": {"delta_from": "link"}}),
        ("recover.data", {"recover": {"data": "run/../run/data/general.txt"}}),
        ("evaluate.tasks", {"evaluate": {"tasks": ["arc_easy", "run/evaluate/quiz.jsonl"]}}),
    ],
)
def test_an_input_in_a_stage_of_the_run_is_refused_before_the_stage_is_cleared(
    key: str, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("link").symlink_to("run")
    with pytest.raises(
        InputError, match=rf"^`{key}` is .*, which this build itself makes .* choose another --out"
    ):
        refuse_own_products(Recipe.model_validate(RECIPE | change), Path("run"))


def test_a_base_is_not_built_over_by_its_adapter(tmp_path: Path) -> None:
    recipe = AdapterRecipe.model_validate(
        {"name": "x", "task": "t", "base": str(tmp_path / "base"), "data": {"file": "mine.jsonl"}}
    )
    refuse_own_products(recipe, tmp_path / "run")
    with pytest.raises(InputError, match="`base` is"):
        refuse_own_products(recipe, tmp_path / "base")


def test_what_lies_beside_the_stages_or_in_another_run_is_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for place in (
        run / "mine.jsonl",
        tmp_path / "old" / "data" / "data.jsonl",
        tmp_path / "run-2" / "data" / "x.jsonl",
    ):
        refuse_own_products(Recipe.model_validate(RECIPE | {"data": {"file": str(place)}}), run)
