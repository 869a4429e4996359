"""The shipped routing data: six teams, equally many rows each, and no held-out message that training has seen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from edgewright_builder.data.own_data import select_rows
from edgewright_builder.data.similarity import Contamination, SeenTexts

EXAMPLES = Path(__file__).parents[3] / "examples"
DATA = EXAMPLES / "ticket-routing.jsonl"
TEAMS = ["delivery", "billing", "repairs", "accounts", "safety", "sales"]


def held_out() -> list[dict[str, Any]]:
    lines = (EXAMPLES / "ticket_routing_quiz.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_team_has_equally_many_rows_and_a_definition() -> None:
    rows, _ = select_rows(DATA, Contamination([]))
    assert Counter(row.output for row in rows) == dict.fromkeys(TEAMS, 80)
    assert all(row["choices"] == TEAMS for row in held_out())
    assert Counter(TEAMS[row["answer"]] for row in held_out()) == dict.fromkeys(TEAMS, 30)
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{team}` |" in readme for team in TEAMS)


def test_no_row_resembles_another_one_or_a_held_out_one() -> None:
    questions = [row["question"] for row in held_out()]
    rows, attrition = select_rows(DATA, Contamination(questions))
    assert len(rows) == attrition["generated"]
    seen = SeenTexts()
    assert [text for text in [row.instruction for row in rows] + questions if not seen.add(text)] == []


def test_held_out_rows_have_names_of_their_own() -> None:
    assert len({row["id"] for row in held_out()}) == len(held_out())
