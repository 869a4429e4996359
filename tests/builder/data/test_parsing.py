"""What models write is read leniently, and what is not there is not invented."""

from __future__ import annotations

import pytest

from edgewright_builder.data.parsing import (
    parse_answer,
    parse_question,
    parse_score,
    parse_topics,
    repeats_itself,
)


@pytest.mark.parametrize(
    ("text", "topics"),
    [
        ("1. Black holes\n2) Neutron stars\n- **Pulsars**\n", ["Black holes", "Neutron stars", "Pulsars"]),
        ("tides, salt water, Tides, coral reefs.", ["tides", "salt water", "coral reefs"]),
        ("Here are some:\nlevers\nThis one is a whole sentence that goes on and on", ["levers"]),
        ("", []),
    ],
)
def test_topics_are_read_from_lines_or_commas_once_each(text: str, topics: list[str]) -> None:
    assert parse_topics(text) == topics


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Question: Why is the sky blue?\nAnswer: light", "Why is the sky blue?"),
        ('1. "What does a pulley do?" Explain.', "What does a pulley do?"),
        ("Tom is late. What happens next?", "Tom is late. What happens next?"),
        ("This is no question.", None),
        ("?", None),
        ("", None),
    ],
)
def test_the_first_line_with_a_question_mark_is_the_question(text: str, question: str | None) -> None:
    assert parse_question(text) == question


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: It melts. Then it boils. And so", "It melts. Then it boils."),
        ("One. Two. Three. Four.", "One. Two. Three."),
        ("It is 3.5 metres long. Really", "It is 3.5 metres long."),
        ("a sentence that was cut in the mid", None),
        ("", None),
    ],
)
def test_an_answer_is_up_to_three_whole_sentences(text: str, answer: str | None) -> None:
    assert parse_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", 4.0),
        ("Score: 5", 5.0),
        ("**3**/5", 3.0),
        ("4/5 because it is right", 4.0),
        ("I would give 2.0.", 2.0),
        ("On a scale of 1 to 5: 3", 3.0),
        ("10", None),
        ("3.7", None),
        ("very good", None),
        ("0 points", None),
    ],
)
def test_a_score_is_a_whole_number_from_1_to_5(text: str, score: float | None) -> None:
    assert parse_score(text) == score


def test_a_loop_of_three_words_is_seen() -> None:
    assert repeats_itself("What happens to a web of life in a web of life?")
    assert not repeats_itself("Gravity pulls the ball, and the ball falls to the ground.")
