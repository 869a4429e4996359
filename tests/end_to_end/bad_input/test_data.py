"""Data or an endpoint that a build can do nothing with is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.bad_input.saying import (
    INPUT,
    assert_says,
    build,
    copied_model,
    variant,
)


def test_data_of_which_nothing_is_left_is_refused_with_the_attrition(recipe: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"Count to {n}.", "output": "..."} for n in range(3)]
    questions = [{"question": row["instruction"], "choices": ["a", "b"], "answer": 0} for row in rows]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    evaluation = tmp_path / "benchmarks" / "counting" / "eval.jsonl"
    evaluation.parent.mkdir(parents=True)
    evaluation.write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    changed = variant(recipe, tmp_path, lambda values: values["data"].update(file="mine.jsonl"))
    done = build(changed, tmp_path / "run", "--benchmarks", str(evaluation.parent.parent))
    assert_says(done, INPUT, "mine.jsonl left no row, expected at least 1", "generated 3, contaminated 3")
    assert not (tmp_path / "run").exists()


def test_a_dialogue_that_the_chat_template_would_drop_is_refused_before_anything_is_written(
    recipe: Path, tmp_path: Path
) -> None:
    model = copied_model(recipe, tmp_path)
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    row = {"instruction": "When?", "output": "At ten.", "system": "You answer for a museum."}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")

    def change(values: dict[str, Any]) -> None:
        values["data"].update(file="mine.jsonl")
        values["student"].update(model=str(model))

    done = build(variant(recipe, tmp_path, change), tmp_path / "run")
    assert_says(done, INPUT, "chat template leaves the system's 'You answer for a museum.' out")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("teacher", "parts"),
    [
        ({"endpoint": "http://localhost:1/v1", "api_key_env": "NO_SUCH_KEY"}, ["NO_SUCH_KEY", "is not set"]),
        (
            {"endpoint": "localhost:8000/v1"},
            ["`teachers.data.endpoint`", "'localhost:8000/v1'", "http://HOST:8000/v1"],
        ),
    ],
    ids=["key", "address"],
)
def test_an_endpoint_that_can_t_be_asked_is_refused_before_anything_is_written(
    recipe: Path, tmp_path: Path, teacher: dict[str, str], parts: list[str]
) -> None:
    def change(values: dict[str, Any]) -> None:
        del values["data"]["file"]
        values["teachers"]["data"] = {"model": "m", **teacher}

    assert_says(build(variant(recipe, tmp_path, change), tmp_path / "run"), INPUT, *parts)
    assert not (tmp_path / "run").exists()
