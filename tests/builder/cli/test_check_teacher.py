from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgewright.errors import InputError
from edgewright_builder.cli.main import app
from tests.support.tiny_tokenizers import byte_level, sentencepiece


def folder(path: Path, tokenizer: object) -> Path:
    path.mkdir()
    tokenizer.save(str(path / "tokenizer.json"))  # type: ignore[attr-defined]
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return folder(tmp_path / "teacher", sentencepiece(560))


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return folder(tmp_path / "student", byte_level(420))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check-teacher", *map(str, arguments)])


def test_a_teacher_of_another_vocabulary_is_judged_from_the_tokenizers_alone(
    teacher: Path, student: Path
) -> None:
    done = run(teacher, student)
    assert done.exit_code == 0, done.output
    assert "aligned by projected KL" in done.output
    assert "this teacher fits" in done.output


def test_below_the_floor_the_answer_is_no_and_a_flag_lowers_it(teacher: Path, student: Path) -> None:
    done = run(teacher, student, "--minimum", "1.0", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["schema"] == "edgewright.check-teacher.v1"
    assert document["fits"] is False
    assert 0.25 < document["equal_share"] <= document["compared_share"] <= 1
    assert run(teacher, student, "--minimum", "0.1").exit_code == 0


def test_one_tokenizer_twice_is_a_shared_vocabulary(student: Path) -> None:
    document = json.loads(run(student, student, "--json").stdout)
    assert document["shared_vocabulary"] is True
    assert document["equal_share"] == document["compared_share"] == 1
    assert document["lost_share"] == 0


def test_a_folder_without_a_fast_tokenizer_is_bad_input(tmp_path: Path, student: Path) -> None:
    done = run(tmp_path, student)
    assert isinstance(done.exception, InputError)
    assert "has no fast tokenizer (tokenizer.json)" in str(done.exception)
