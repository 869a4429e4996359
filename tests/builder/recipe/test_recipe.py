from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import pytest
import yaml

from edgewright.errors import InputError
from edgewright.yaml_files import read_mapping
from edgewright_builder.recipe.adapter_recipe import load_any_recipe
from edgewright_builder.recipe.model_recipe import load_recipe
from edgewright_builder.study.cells import cells_of
from edgewright_builder.study.study_file import load_study

MINIMAL = {
    "name": "minimal", "task": "arc_easy", "student": {"model": "a/b"},
    "teachers": {"data": {"model": "c/d"}, "knowledge": {"model": "e/f"}},
}  # fmt: skip
EXAMPLES = Path(__file__).parents[3] / "examples"


def written(folder: Path, recipe: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MINIMAL))
    assert (recipe.data.pairs, recipe.data.temperature, recipe.data.top_p) == (600, 0.7, 0.95)
    assert (recipe.search.trials, recipe.finetune.validation_fraction) == (16, 0.1)
    # the paper says 128 sequences and not how long; tokens are what decides
    assert recipe.quantize.calibration_tokens == 12288
    space = recipe.search.space
    bounds = {name: (getattr(space, name).low, getattr(space, name).high) for name in (
        "lora_scale", "lora_rank", "learning_rate", "temperature", "alpha", "weight_decay")}  # fmt: skip
    assert bounds == {
        "lora_scale": (0.5, 2), "lora_rank": (8, 64), "learning_rate": (1e-5, 1e-3), "temperature": (0.5, 8),
        "alpha": (0, 1), "weight_decay": (0, 2),
    }  # fmt: skip
    assert set(space.optimizer) == {"adam", "muon"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_valid_recipe_or_study(path: Path) -> None:
    if "factors" in read_mapping(path, "recipe"):
        assert cells_of(load_study(path))
    else:
        assert load_any_recipe(path).name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serach": {}}, "unknown key `serach`"),
        ({"search": {"trails": 3}}, "unknown key `search.trails`"),
        ({"search": {"trials": "many"}}, "`search.trials` is 'many'"),
        (
            {"version": 1.1},
            "`version` is 1.1: expected text; put it in quotes, as YAML reads it as a number.",
        ),
        (
            {"version": date(2026, 11, 29)},
            "`version` is 2026-11-29: expected text; put it in quotes, as YAML reads it as a date.",
        ),
        ({"name": "a b"}, "`name` is 'a b': expected text of the form ^[A-Za-z0-9]"),
        ({"recover": "maybe"}, "`recover` is 'maybe': expected keys and values."),
        ({"search": {"trials": True}}, "`search.trials` is True: expected a number"),
        (
            {"search": {"space": {"lora_rank": [8, True]}}},
            "`search.space.lora_rank.high` is True: expected a",
        ),
        ({"student": {"model": "a/b", "depth": True}}, "`student.depth` is True: expected a number"),
        ({"serving": {"ttft_seconds_max": math.inf}}, "`serving.ttft_seconds_max` is inf: expected a finite"),
        ({"data": {"minimum_relevance": math.nan}}, "`data.minimum_relevance` is nan: expected a finite"),
        ({"recover": {"steps": 10**30}}, f"`recover.steps` is {10**30}: expected at most 1,000,000."),
        ({"seed": -1}, "`seed` is -1: expected at least 0."),
        ({"seed": 2**31}, "`seed` is 2147483648: expected at most 2,147,483,647."),
        ({"data": {"file": 5}}, "`data.file` is 5: expected a path."),
        (
            {"evaluate": {"tasks": "arc_easy"}},
            "`evaluate.tasks` is 'arc_easy': expected a list, such as [a, b].",
        ),
        ({"search": {"space": {"alpha": [1, 0]}}}, "low 1.0 is above high 0.0"),
        ({"quantize": {"group_size": 48}}, "`quantize.group_size"),
        (
            {"quantize": {"group_size": 64}, "search": {"space": {"group_size": [32, 64]}}},
            "`quantize.group_size` is 64 and `search.space.group_size` is [32, 64]: give one of them",
        ),
        (
            {"search": {"trials": 2}, "hyperparameters": {"optimizer": "muon"}},
            "`search` and `hyperparameters` are both given",
        ),
        ({"hyperparameters": {"learning_rat": 1e-3}}, "unknown key `hyperparameters.learning_rat`"),
        ({"task": None}, "`task` is None"),
        ({"teachers": {"knowledge": {"model": "e/f"}}}, "give `teachers.data`"),
    ],
)
def test_a_wrong_recipe_is_refused_naming_the_key(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(written(tmp_path, MINIMAL | change))
    assert message in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the key `student` is missing"):
        load_recipe(written(tmp_path, {key: value for key, value in MINIMAL.items() if key != "student"}))


def test_a_misspelt_key_is_told_before_the_one_that_is_missing(tmp_path: Path) -> None:
    values = {{"student": "studnt"}.get(key, key): value for key, value in MINIMAL.items()}
    with pytest.raises(InputError, match=r"unknown key `studnt`; did you mean `student`\?$"):
        load_recipe(written(tmp_path, values))


@pytest.mark.parametrize("text", ["", "- a list", "key: [unclosed", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"recipe\.yaml"):
        load_recipe(path)


def test_paths_are_taken_from_the_recipes_folder(tmp_path: Path) -> None:
    recipe = load_recipe(
        written(tmp_path, MINIMAL | {"data": {"file": "mine.jsonl"}, "evaluate": {"tasks": ["q.jsonl"]}})
    )
    assert recipe.data.file == tmp_path / "mine.jsonl"
    assert recipe.evaluate.tasks == (str(tmp_path / "q.jsonl"),)


def test_a_home_folder_is_written_out_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    changes = {
        "data": {"file": "~/mine.jsonl", "prompts": "~/p"},
        "evaluate": {"tasks": ["~/q.jsonl"], "benchmarks": "~/b"},
    }
    recipe = load_recipe(written(tmp_path, MINIMAL | changes))
    assert (recipe.data.file, recipe.data.prompts) == (Path("/home/me/mine.jsonl"), Path("/home/me/p"))
    assert (recipe.evaluate.tasks, recipe.evaluate.benchmarks) == (("/home/me/q.jsonl",), Path("/home/me/b"))


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"file": "~nobody-here/mine.jsonl"}},
        {"evaluate": {"tasks": ["~nobody-here/q.jsonl"]}},
        {"quantize": {"delta_from": "~nobody-here/old"}},
    ],
)
def test_a_home_folder_that_is_none_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(
        InputError, match="begins with ~nobody-here, and there is no such home folder; write it out"
    ):
        load_recipe(written(tmp_path, MINIMAL | change))


def test_a_preset_of_ones_own_lies_beside_the_recipe_and_an_artifact_carries_its_name(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MINIMAL | {"data": {"preset": "presets/mine.yaml"}}))
    assert recipe.data.preset == str(tmp_path / "presets" / "mine.yaml")
    assert recipe.portable()["data"]["preset"] == "mine.yaml"
    shipped = load_recipe(written(tmp_path, MINIMAL | {"data": {"preset": "piqa"}}))
    assert shipped.data.preset == shipped.portable()["data"]["preset"] == "piqa"


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
def test_an_artifact_carries_a_precision_only_where_its_recipe_gives_one(
    tmp_path: Path, precision: str | None
) -> None:
    given = {} if precision is None else {"finetune": {"precision": precision}}
    model = load_any_recipe(written(tmp_path, MINIMAL | given))
    adapter = {"name": "a", "task": "t", "base": "b", "data": {"file": "d.jsonl"}} | given
    for recipe in (model, load_any_recipe(written(tmp_path, adapter))):
        carried = recipe.portable()["finetune"]
        assert carried.get("precision", "none") == (precision or "none")
