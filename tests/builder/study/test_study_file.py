from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright.errors import InputError
from edgewright_builder.study.cells import StudyCell, cells_of
from edgewright_builder.study.study_file import StudyFile, load_study, profile_of, replicates_min
from tests.support.commands import invoke
from tests.support.markdown import blocks

RECIPE: dict[str, Any] = {
    "name": "base", "task": "arc_easy", "student": {"model": "m"}, "data": {"file": "pairs.jsonl"},
    "teachers": {"knowledge": {"model": "m"}}, "hyperparameters": {"learning_rate": 1e-3},
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "muon-or-adam", "recipe": "recipe.yaml", "budget": "1GiB",
    "factors": {"hyperparameters.optimizer": ["adam", "muon"], "finetune.seed": [1, 2, 3, 4, 5]},
    "compare": {"factor": "hyperparameters.optimizer", "levels": ["adam", "muon"]},
}  # fmt: skip

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


def shown(name: str, folder: Path) -> list[StudyCell]:
    """The cells of a study in docs/studies.md, over the recipe of these tests."""
    text = next(block.text for block in blocks("yaml") if block.text.startswith(f"name: {name}\n"))
    (folder / "base.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return cells_of(load_study(folder / "study.yaml"))


def test_calibration_is_a_factor(tmp_path: Path) -> None:
    cells = shown("calibration", tmp_path)
    assert len(cells) == 4 * 4 * 5
    quantize = [cell.recipe.quantize for cell in cells]
    assert {settings.calibration_samples for settings in quantize} == {16, 64, 128, 256}
    assert {settings.general_data for settings in quantize} == {None, tmp_path / "wikitext.txt"}
    assert sum(settings.calibration_source == "random" for settings in quantize) == 4 * 5


def test_alpha_is_a_factor_fixed_or_searched_by_either_objective(tmp_path: Path) -> None:
    by_alpha = {cell.levels["alpha"]: cell.recipe for cell in shown("alpha", tmp_path)}
    fixed = {name: recipe.hyperparameters for name, recipe in by_alpha.items() if recipe.hyperparameters}
    assert {name: settings.alpha for name, settings in fixed.items()} == {"none": 0, "half": 0.5, "all": 1}
    objectives = {name: recipe.search.objective for name, recipe in by_alpha.items() if name not in fixed}
    assert objectives == {"searched": "quantized_kl", "searched-as-the-paper": "paper"}


def test_a_choice_made_at_one_level_of_a_factor_holds_for_the_others(tmp_path: Path) -> None:
    factors = STUDY["factors"] | {"task": ["arc_easy", "piqa"]}
    tune = {"key": "hyperparameters.learning_rate", "levels": [1e-4, 1e-3], "at": {"task": "arc_easy"}}
    for cell in cells_of(written(tmp_path, factors=factors, tune=tune)):
        assert {each.trial.task for each in cell.candidates} == {"arc_easy"}
        assert {each.recipe.task for each in cell.candidates} == {cell.levels["task"]}


def test_a_cell_s_name_is_a_folder_s_whatever_its_levels_are_called(tmp_path: Path) -> None:
    levels = {"a\nb/" + "c" * 300: {"finetune.batch_tokens": 512}, "..": {"finetune.batch_tokens": 1024}}
    cells = cells_of(written(tmp_path, factors=STUDY["factors"] | {"x": levels}))
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        (tmp_path / "cells" / cell.name).mkdir(parents=True)


def test_names_are_the_same_in_every_process(tmp_path: Path) -> None:
    study = written(tmp_path)
    assert [cell.name for cell in cells_of(study)] == [cell.name for cell in cells_of(study)]


def test_names_are_the_same_on_a_host_that_keeps_its_files_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    ours, theirs = cells_of(written(here)), cells_of(written(there))
    assert [cell.name for cell in ours] == [cell.name for cell in theirs]
    assert theirs[0].recipe.data.file == there / "pairs.jsonl"


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
        ({"factors": {"seed": [1, "1"]}, "compare": None}, "1 and '1', which are both written 1"),
        ({"factors": {"hyperparameters.alpha": [0.50000001, 0.50000002]}, "compare": None}, "both written 0.5; give"),
        ({"tune": TUNE | {"levels": [1e-3, 1e-3]}}, "has the level 0.001 twice"),
        ({"tune": TUNE | {"key": "finetune.seed"}}, "which the factor `finetune.seed` sets"),
        ({"compare": STUDY["compare"] | {"across": "hyperparameters.optimizer"}}, "`hyperparameters.optimizer` twice"),
        ({"compare": STUDY["compare"] | {"across": "finetune.seed"}}, "names `finetune.seed` twice"),
        ({"surface": ["finetune.seed", "finetune.seed"]}, "`surface` names `finetune.seed` twice"),
        ({"factors": STUDY["factors"] | {"finetune.batch_tokens": [*range(16, 2016)]}}, "20,000 cells, expected"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        cells_of(written(tmp_path, **changes))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("interval", "needed"), [(0.5, 2), (0.75, 3), (0.8, 4), (0.9, 5), (0.95, 6), (0.99, 8)]
)
def test_a_wider_interval_needs_more_replicates(interval: float, needed: int) -> None:
    assert replicates_min(interval) == needed


@pytest.mark.parametrize("storage", ["redis://host", "grpc://host:port", "sqlite:///study.db"])
def test_a_storage_that_is_none_is_refused_before_the_folder_is_made(storage: str, tmp_path: Path) -> None:
    written(tmp_path)
    result = invoke("study", tmp_path / "study.yaml", "-o", tmp_path / "out", "--storage", storage)
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ({"budget": "2GiB"}, "`budget: 2GiB`, and this one has `budget: 1GiB`"),
        (
            {"device": "jetson-orin-nano-8gb"},
            "`device: jetson-orin-nano-8gb`, and this one has `device: this-host`",
        ),
        ({"name": "other"}, "`name: other`, and this one has `name: muon-or-adam`"),
    ],
)
def test_cells_of_another_budget_or_board_are_not_mixed_with_these(
    tmp_path: Path, kept: dict[str, Any], sentence: str
) -> None:
    written(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.yaml").write_text(yaml.safe_dump(STUDY | kept), encoding="utf-8")
    result = invoke("study", tmp_path / "study.yaml", "-o", tmp_path / "out", "--resume")
    assert isinstance(result.exception, InputError)
    assert sentence in str(result.exception)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["study.yaml"]


def test_a_profile_of_one_s_own_is_taken_from_the_study_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    profile = (
        resources.files("edgewright_profiles")
        .joinpath("jetson-orin-nano-8gb.yaml")
        .read_text(encoding="utf-8")
    )
    changed = yaml.safe_load(profile) | {"id": "my-board", "aliases": []}
    (tmp_path / "board.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    study = written(tmp_path, device="board.yaml")
    assert profile_of(study, tmp_path / "study.yaml").id == "my-board"
    by_id = study.model_copy(update={"device": "jetson-orin-nano-8gb"})
    assert profile_of(by_id, tmp_path / "study.yaml").id == "jetson-orin-nano-8gb"
    missing = study.model_copy(update={"device": "board.yml"})
    with pytest.raises(InputError, match=r"board\.yml"):
        profile_of(missing, tmp_path / "study.yaml")


def test_options_may_come_before_the_study_s_file(tmp_path: Path) -> None:
    written(tmp_path)
    result = invoke("study", "-o", tmp_path / "out", "--storage", "redis://host", tmp_path / "study.yaml")
    assert "The storage redis://host is none that workers can share" in str(result.exception)
    assert "Usage" in invoke("study", "--help").stdout
