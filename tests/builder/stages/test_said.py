"""What a build does not learn from is said while it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.teacher import run_teacher
from tests.support.tiny_models import tiny_model, tiny_tokenizer


@pytest.fixture
def model(tmp_path: Path) -> str:
    tiny_model(1).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def job(folder: Path, model: str, rows: list[Any], output: io.StringIO, **finetune: Any) -> Distillation:
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {
        "name": "x", "task": "t", "student": {"model": model}, "teachers": {"knowledge": {"model": model}},
        "data": {"file": str(file)}, "finetune": finetune,
    }  # fmt: skip
    run = Run(folder / "run", Reporter(Console(file=output)))
    return Distillation(Recipe.model_validate(values), run, model, model)


def row(question: str, answer: str) -> dict[str, str]:
    return {"instruction": question, "output": answer}


def test_dropped_rows_are_said_with_their_reason(tmp_path: Path, model: str) -> None:
    output = io.StringIO()
    stage = run_data(job(tmp_path, model, [row("a", "b"), row("a", "b"), row("a", "c")], output))
    assert stage.summary["pairs"] == 2
    assert "2 of 3 rows of mine.jsonl are kept; dropped: 1 equal to an earlier row" in output.getvalue()


def test_when_nothing_is_dropped_nothing_is_said(tmp_path: Path, model: str) -> None:
    output = io.StringIO()
    run_data(job(tmp_path, model, [row("a", "b"), row("a", "c")], output))
    assert "kept" not in output.getvalue()


def test_pairs_longer_than_a_sequence_are_said(tmp_path: Path, model: str) -> None:
    output, long = io.StringIO(), " water" * 40
    rows = [
        row("Why?", "Air."),
        row("Why so?", "Air."),
        row(f"Why is{long}?", "Air."),
        row("How?", f"By{long}."),
    ]
    made = job(tmp_path, model, rows, output, sequence_tokens=24, batch_tokens=64)
    run_teacher(made, run_data(made))
    assert (
        "of 4 pairs 1 have no answer within it and are left out, 1 reach it and may be cut"
        in output.getvalue()
    )
