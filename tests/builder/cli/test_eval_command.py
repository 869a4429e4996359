"""`edgewright eval --compare`: a board is asked what its build was asked, in the same form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import InputError
from tests.support.commands import invoke, output
from tests.support.evaluated_run import write_evaluation
from tests.support.tiny_models import tiny_tokenizer


def evaluated_run(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A run whose build asked these rows in the chat template, and got all of them right."""
    quiz, run = folder / "quiz.jsonl", folder / "run"
    quiz.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_tokenizer().save_pretrained(run / "student" / "model")
    write_evaluation(run, quiz, "chat")
    return run


ROWS = [
    {"question": "Sky?", "choices": ["blue", "a very long answer"], "answer": 0},
    {"question": "Sea?", "choices": ["an even longer answer", "wet"], "answer": 0},
]


def test_eval_asks_what_a_build_was_asked_and_says_how_far_the_board_is_from_the_host(
    host: str, tmp_path: Path
) -> None:
    run = evaluated_run(tmp_path, ROWS)
    (found,) = json.loads(output("eval", host, "--insecure", "--compare", run, "--json"))["results"]
    # Every choice costs one nat a character: the shorter one is likelier, and a chat is judged by likelihood alone.
    assert (found["metric"], found["outcomes"]) == ("acc", [True, False])
    assert found["host"] == {
        "model": "exported", "accuracy": 1.0, "difference": -0.5, "standard_error": pytest.approx(0.5),
    }  # fmt: skip
    assert "-0.5000 ± 0.5000" in output("eval", host, "--insecure", "--compare", run)


def test_eval_refuses_to_compare_rows_that_changed_since_the_build(host: str, tmp_path: Path) -> None:
    run = evaluated_run(tmp_path, ROWS)
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(ROWS)))
    result = invoke("eval", host, "--insecure", "--compare", run)
    assert isinstance(result.exception, InputError)
    assert "no longer holds the rows" in str(result.exception)


@pytest.mark.parametrize("more", [("--tasks", "arc_easy"), ("--limit", "3"), ("--benchmarks", ".")])
def test_eval_compares_what_the_build_was_asked_and_nothing_else(
    host: str, more: tuple[str, str], tmp_path: Path
) -> None:
    result = invoke("eval", host, "--insecure", "--compare", evaluated_run(tmp_path, ROWS), *more)
    assert isinstance(result.exception, InputError)
    assert "leave" in str(result.exception)
