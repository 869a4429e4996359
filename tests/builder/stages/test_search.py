"""What a search found is read back, or its file is named."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from edgewright.errors import InputError
from edgewright_builder.recipe.hyperparameters import FixedHyperparameters, TrialSettings
from edgewright_builder.run.resumable_run import FinishedStage
from edgewright_builder.stages.search import read_best


def test_the_best_settings_are_read_back(tmp_path: Path) -> None:
    best = TrialSettings(FixedHyperparameters().values, 64)
    (tmp_path / "best.json").write_text(json.dumps(asdict(best)), encoding="utf-8")
    assert read_best(FinishedStage("search", tmp_path, "", 0.0, {})) == best


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"hyperparameters": {"x": 1}, "group_size": 64}', "[" * 9999]
)
def test_a_damaged_result_is_one_sentence_that_says_what_to_delete(tmp_path: Path, text: str) -> None:
    (tmp_path / "best.json").write_text(text, encoding="utf-8")
    with pytest.raises(
        InputError, match=rf"^{tmp_path}/best\.json is damaged \(.*\); delete {tmp_path} to search again"
    ):
        read_best(FinishedStage("search", tmp_path, "", 0.0, {}))
