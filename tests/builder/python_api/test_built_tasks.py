"""What a build was evaluated on is read from its folder, or the folder is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import InputError
from edgewright_builder.python_api.built_tasks import built_tasks
from tests.support.evaluated_run import write_evaluation

ROOT = Path(__file__).parents[3]
RESULTS, ROWS = "results.json", "exported/science_quiz.json"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_evaluation(tmp_path / "run", ROOT / "examples" / "science_quiz.jsonl", "plain")
    return tmp_path / "run"


def test_a_whole_evaluation_is_read(run: Path) -> None:
    (task,) = built_tasks(run)
    assert task.model == "exported"
    assert all(task.right)


def test_a_quiz_of_ones_own_may_be_called_as_a_known_task(tmp_path: Path) -> None:
    quiz = tmp_path / "arc_easy.jsonl"
    quiz.write_bytes((ROOT / "examples" / "science_quiz.jsonl").read_bytes())
    write_evaluation(tmp_path / "run", quiz, "plain")
    (task,) = built_tasks(tmp_path / "run")
    assert (task.task.source, all(task.right)) == (str(quiz), True)


@pytest.mark.parametrize("file", [RESULTS, ROWS])
@pytest.mark.parametrize("text", ["{", "[]", "null", "{}", '{"tasks": {"x": 1}}', "[" * 100_000])
def test_a_damaged_evaluation_is_one_sentence(file: str, text: str, run: Path) -> None:
    (run / "evaluate" / file).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="evaluat"):
        built_tasks(run)


def test_a_missing_file_of_an_evaluation_is_one_sentence(run: Path) -> None:
    (run / "evaluate" / ROWS).unlink()
    with pytest.raises(InputError, match="is damaged"):
        built_tasks(run)
