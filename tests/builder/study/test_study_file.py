from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright.errors import InputError
from edgewright_builder.study.cells import cells_of
from edgewright_builder.study.study_file import StudyFile, load_study, replicates_min

RECIPE: dict[str, Any] = {
    "name": "base", "task": "arc_easy", "student": {"model": "m"}, "data": {"file": "pairs.jsonl"},
    "teachers": {"knowledge": {"model": "m"}}, "hyperparameters": {"learning_rate": 1e-3},
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "muon-or-adam", "recipe": "recipe.yaml", "budget": "1GiB",
    "factors": {"hyperparameters.optimizer": ["adam", "muon"], "finetune.seed": [1, 2, 3, 4, 5]},
    "compare": {"factor": "hyperparameters.optimizer", "levels": ["adam", "muon"]},
}  # fmt: skip

DOCS = Path(__file__).parents[3] / "docs"
TUNE: dict[str, Any] = {"key": "hyperparameters.learning_rate", "levels": [1e-4, 1e-3]}


def written(folder: Path, **changes: Any) -> StudyFile:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes), encoding="utf-8")
    return load_study(path)


def test_a_cell_is_the_recipe_at_one_combination_of_levels(tmp_path: Path) -> None:
    cells = cells_of(written(tmp_path))
    assert len(cells) == 10
    trained = [cell.recipe.hyperparameters for cell in cells]
    pairs = {
        (None if how is None else how.optimizer, cell.recipe.finetune.seed)
        for how, cell in zip(trained, cells, strict=True)
    }
    assert pairs == {(optimizer, seed) for optimizer in ("adam", "muon") for seed in range(1, 6)}
    assert all(cell.recipe.data.file == tmp_path / "pairs.jsonl" for cell in cells)
    assert len({cell.name for cell in cells}) == 10


def test_a_level_may_set_several_keys(tmp_path: Path) -> None:
    tasks = {
        "arc": {"task": "arc_easy", "data.file": "arc.jsonl"},
        "piqa": {"task": "piqa", "data.file": "piqa.jsonl"},
    }
    cells = cells_of(written(tmp_path, factors={"subject": tasks}, compare=None))
    assert [(cell.recipe.task, cell.recipe.data.file) for cell in cells] == [
        ("arc_easy", tmp_path / "arc.jsonl"), ("piqa", tmp_path / "piqa.jsonl"),
    ]  # fmt: skip


def test_a_section_may_be_switched_off_as_a_level(tmp_path: Path) -> None:
    cells = cells_of(written(tmp_path, factors={"recover": ["off", {"train": "scales"}]}, compare=None))
    assert [cell.recipe.recover.train for cell in cells] == ["off", "scales"]


def test_a_tuned_key_is_tried_on_the_first_replicate_and_set_in_the_cell(tmp_path: Path) -> None:
    study = written(tmp_path, tune={"key": "hyperparameters.learning_rate", "levels": [1e-4, 1e-3]})
    cell = next(cell for cell in cells_of(study) if cell.levels["finetune.seed"] == "3")
    assert [each.level for each in cell.candidates] == ["0.0001", "0.001"]
    assert [each.trial.finetune.seed for each in cell.candidates] == [1, 1]
    assert [each.recipe.finetune.seed for each in cell.candidates] == [3, 3]


def test_calibration_and_alpha_are_factors(tmp_path: Path) -> None:
    """What docs/studies.md shows."""
    text = (DOCS / "studies.md").read_text(encoding="utf-8").split("Calibration and α are factors too:")[1]
    factors = yaml.safe_load(text.split("```")[1].removeprefix("yaml"))["factors"]
    cells = cells_of(written(tmp_path, factors=factors, compare=None))
    assert len(cells) == 4 * 4 * 4
    by_alpha = {cell.levels["alpha"]: cell.recipe for cell in cells}
    assert by_alpha["searched"].hyperparameters is None
    assert by_alpha["searched as in the paper"].search.objective == "paper"
    fixed = by_alpha["fixed at 0"].hyperparameters
    assert fixed is not None
    assert fixed.alpha == 0
    assert {cell.recipe.quantize.general_data for cell in cells} == {None, tmp_path / "wikitext.txt"}


def test_a_choice_made_at_one_level_of_a_factor_holds_for_the_others(tmp_path: Path) -> None:
    factors = STUDY["factors"] | {"task": ["arc_easy", "piqa"]}
    tune = {"key": "hyperparameters.learning_rate", "levels": [1e-4, 1e-3], "at": {"task": "arc_easy"}}
    for cell in cells_of(written(tmp_path, factors=factors, tune=tune)):
        assert {each.trial.task for each in cell.candidates} == {"arc_easy"}
        assert {each.recipe.task for each in cell.candidates} == {cell.levels["task"]}


def test_names_are_the_same_in_every_process(tmp_path: Path) -> None:
    study = written(tmp_path)
    assert [cell.name for cell in cells_of(study)] == [cell.name for cell in cells_of(study)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": {"quantize.group_sise": [32, 64]}, "compare": None}, "did you mean `quantize.group_size`?"),
        ({"factors": {"name": ["a", "b"]}, "compare": None}, "`name` makes no difference to any figure"),
        ({"factors": {"seed": [1, 1]}, "compare": None}, "has the level 1 twice"),
        ({"factors": {"seed": []}, "compare": None}, "`seed` has no levels"),
        ({"factors": {"seed": [0], "s": {"a": {"seed": 1}, "b": {"seed": 1}}}, "compare": None}, "has the level"),
        ({"factors": {"quantize.group_size": [32, 48]}, "compare": None}, "`quantize.group_size"),
        ({"factors": {"seed": [1, 2]}}, "`hyperparameters.optimizer`, which is not among the factors"),
        ({"compare": STUDY["compare"] | {"levels": ["adam", "sgd"]}}, "has the levels ['adam', 'muon']"),
        ({"compare": STUDY["compare"] | {"levels": ["adam", "adam"]}}, "no pairs to compare"),
        ({"factors": STUDY["factors"] | {"finetune.seed": [1, 2]}}, "needs 5 levels of `finetune.seed`, not 2"),
        ({"tune": {"key": "hyperparameters.lr", "levels": [1, 2]}}, "did you mean"),
        ({"tune": TUNE | {"at": {"task": "piqa"}}}, "`tune.at` names `task`, which is not among the factors"),
        ({"tune": TUNE | {"at": {"finetune.seed": "9"}}}, "`finetune.seed` has the levels ['1', '2', '3', '4', '5']"),
        ({"tune": TUNE | {"at": {"hyperparameters.optimizer": "adam"}}}, "each of its levels needs its own choice"),
        ({"factors": {"recover": ["off", {"train": "off"}]}, "compare": None}, "are the same recipe"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        cells_of(written(tmp_path, **changes))
    assert message in str(refused.value)


@pytest.mark.parametrize(("interval", "needed"), [(0.8, 3), (0.9, 4), (0.95, 5), (0.99, 7)])
def test_a_wider_interval_needs_more_replicates(interval: float, needed: int) -> None:
    assert replicates_min(interval) == needed
