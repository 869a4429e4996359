"""The shipped general text: enough of it, every passage once, and nothing that an evaluation asks."""

from __future__ import annotations

import json
from pathlib import Path

from edgewright_builder.data.general_text import general_passages
from edgewright_builder.data.similarity import Contamination, SeenTexts

EXAMPLES = Path(__file__).parents[3] / "examples"


def evaluation_questions() -> list[str]:
    files = sorted(EXAMPLES.glob("*_quiz.jsonl"))
    assert files
    return [json.loads(line)["question"] for file in files for line in file.read_text("utf-8").splitlines()]


def test_there_are_about_ninety_kilobytes_in_passages_of_a_paragraph_s_length() -> None:
    sizes_bytes = [len(passage.encode()) for passage in general_passages()]
    assert len(sizes_bytes) == 150
    assert 80_000 <= sum(sizes_bytes) <= 100_000
    assert min(sizes_bytes) >= 300
    assert max(sizes_bytes) <= 1_000
    assert all(passage == passage.strip() for passage in general_passages())


def test_no_passage_resembles_another_one() -> None:
    seen = SeenTexts(threshold=0.1)
    assert [passage for passage in general_passages() if not seen.add(passage)] == []


def test_no_passage_holds_a_question_of_the_example_quizzes() -> None:
    evaluated = Contamination(evaluation_questions())
    assert [passage for passage in general_passages() if passage in evaluated] == []
