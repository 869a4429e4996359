"""What a cell of a study would miss is found before the study's folder is made, not after hours of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright.errors import InputError
from edgewright_builder.pipeline.preflight import check_general_text
from edgewright_builder.recipe.model_recipe import Recipe
from tests.support.commands import invoke

QUIZ = {"question": "Sun?", "choices": ["yes", "no"], "answer": 0}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """A recipe whose files are all there; its student has no weights, which nothing here reads."""
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text("{}")
    (student / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"instruction": "a", "input": "", "output": "b"}) + "\n")
    (tmp_path / "quiz.jsonl").write_text(json.dumps(QUIZ) + "\n")
    return {
        "name": "base", "task": "t", "student": {"model": str(student)}, "data": {"file": "pairs.jsonl"},
        "teachers": {"knowledge": {"model": str(student)}}, "evaluate": {"tasks": ["quiz.jsonl"]},
        "hyperparameters": {"learning_rate": 1e-3},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "level", "says"),
    [
        ("data.file", "gone.jsonl", "gone.jsonl"),
        ("evaluate.tasks", ["gone.jsonl"], "there is no file"),
        ("quantize.general_data", "gone.txt", "gone.txt can't be read as text"),
        ("recover.data", "gone.txt", "gone.txt can't be read as text"),
        ("recover", {"data": "gone.txt", "general_share": 0}, "gone.txt can't be read as text"),
    ],
)
def test_a_level_that_names_a_file_which_is_not_there_is_refused_first(
    tmp_path: Path, recipe: dict[str, Any], key: str, level: Any, says: str
) -> None:
    levels = {"there": {"finetune.seed": 1}, "gone": {key: level}}
    document = {
        "name": "s", "recipe": "recipe.yaml", "device": "raspberry-pi-5-8gb", "budget": "1GiB",
        "factors": {"files": levels},
    }  # fmt: skip
    for name, content in (("recipe", recipe), ("study", document)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    refused = invoke("study", tmp_path / "study.yaml", "-o", tmp_path / "out").exception
    assert isinstance(refused, InputError)
    assert says in str(refused)
    assert not (tmp_path / "out").exists()


def test_text_that_no_stage_reads_may_be_gone(tmp_path: Path, recipe: dict[str, Any]) -> None:
    gone = str(tmp_path / "gone.txt")
    for unread in (
        {"quantize": {"general_data": gone, "general_share": 0}},
        {"recover": {"data": gone, "train": "off"}, "quantize": {"general_share": 0}},
    ):
        check_general_text(Recipe.model_validate(recipe | unread), tmp_path / "student")


def test_a_study_beyond_the_boards_memory_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    document = {
        "name": "s", "recipe": "recipe.yaml", "device": "raspberry-pi-5-8gb", "budget": "64GiB",
        "factors": {"finetune.seed": [1, 2]},
    }  # fmt: skip
    for name, content in (("recipe", recipe), ("study", document)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    refused = invoke("study", tmp_path / "study.yaml", "-o", tmp_path / "out").exception
    assert isinstance(refused, InputError)
    assert "64" in str(refused)
    assert not (tmp_path / "out").exists()
