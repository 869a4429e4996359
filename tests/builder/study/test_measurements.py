from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.resumable_run import FinishedStage
from edgewright_builder.study.measurements import run_divergence
from tests.builder.study.test_study_file import RECIPE


def fingerprinted(**changes: Any) -> dict[str, Any]:
    """What the stage of a cell with this recipe is made from."""
    seen: dict[str, Any] = {}

    def stage(_: str, inputs: dict[str, Any], *__: Any, **___: Any) -> None:
        seen.update(inputs)

    recipe = Recipe.model_validate(RECIPE | changes)
    job = SimpleNamespace(recipe=recipe)
    build: Any = SimpleNamespace(recipe=recipe, distillation=job, run=SimpleNamespace(stage=stage))
    made = FinishedStage("made", Path(), "digest", 0.0, {})
    run_divergence(build, made, made, made)
    return seen


def test_other_held_out_text_is_another_measurement(tmp_path: Path) -> None:
    text = tmp_path / "general.txt"
    text.write_text("One passage.\n\nAnother passage.", encoding="utf-8")
    usual = fingerprinted()
    assert fingerprinted() == usual
    assert fingerprinted(recover={"data": str(text)}) != usual
    assert fingerprinted(finetune={"sequence_tokens": 64}) != usual
    assert fingerprinted(seed=1) != usual
