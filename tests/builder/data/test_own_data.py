"""A file of the user's own: no distinct row is lost, no part of a row is left out, and what is dropped is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import InputError
from edgewright_builder.data.alpaca import read_alpaca
from edgewright_builder.stages.data import contamination_of, import_data

INSTRUCTION = "Which team should handle this message? Answer with one of: maintenance, supplies, it, none."
PLACES = ("the left pump", "the right pump", "press four", "the north gate", "the kitchen")
FAULTS = ("runs hot", "runs quiet", "is locked", "needs labels")


def written(folder: Path, rows: list[Any]) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def imported(
    folder: Path, rows: list[Any], benchmarks: Path | None = None
) -> tuple[list[Any], dict[str, int]]:
    """(the rows that are learned from, what became of all)."""
    result = import_data(written(folder, rows), contamination_of(benchmarks), folder / "out")
    lines = result.path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line], result.attrition


def alpaca(instruction: str, output: str, **more: Any) -> dict[str, Any]:
    return {"instruction": instruction, "input": "", "output": output} | more


def evaluation(folder: Path, questions: list[str]) -> Path:
    """A folder of benchmarks with these questions."""
    file = folder / "benchmarks" / "mine" / "eval.jsonl"
    file.parent.mkdir(parents=True)
    rows = [{"question": question, "choices": ["a", "b"], "answer": 0} for question in questions]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "benchmarks"


# Every distinct row is kept


def test_rows_of_one_fixed_instruction_are_all_kept(tmp_path: Path) -> None:
    rows = [
        {"instruction": INSTRUCTION, "input": f"{place} {fault} after lunch", "output": "maintenance"}
        for place in PLACES
        for fault in FAULTS
    ]
    kept, counts = imported(tmp_path, rows)
    assert kept == rows
    assert counts["kept"] == 20


@pytest.mark.parametrize(
    "rows",
    [
        [alpaca("Is it open?", "Yes."), alpaca("Is it open?", "No, not on Sundays.")],
        [alpaca("is it open", "Yes."), alpaca("Is it open?", "Yes.")],
        [alpaca("Grade: 3 < 5", "true"), alpaca("Grade: 3 > 5", "true")],
        [alpaca(f"Rate number {i} of the series", answer) for i, answer in enumerate("<=>+-?")],
        [alpaca("How was it?", "👍"), alpaca("How was that?", "👎")],
        [alpaca("Say nothing at all", "..."), alpaca("Say nothing at any time", "…")],
    ],
    ids=["another-answer", "spelling", "signs", "answers-of-one-sign", "emoji", "dots"],
)
def test_rows_that_differ_in_anything_are_kept(tmp_path: Path, rows: list[Any]) -> None:
    assert imported(tmp_path, rows)[0] == rows


def test_only_equal_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [alpaca("a", "b"), alpaca("a", "c"), alpaca(" a ", "b\n"), {"instruction": "a", "output": "b"}]
    kept, counts = imported(tmp_path, rows)
    assert kept == rows[:2]
    assert counts == {"generated": 4, "contaminated": 0, "duplicate": 2, "kept": 2}


def test_an_instruction_that_data_and_evaluation_share_does_not_make_a_row_contaminated(
    tmp_path: Path,
) -> None:
    benchmarks = evaluation(tmp_path, [f"{INSTRUCTION} {place} is on fire" for place in PLACES])
    rows = [
        {"instruction": INSTRUCTION, "input": f"{place} runs hot", "output": "maintenance"}
        for place in PLACES
    ]
    rows.append({"instruction": INSTRUCTION, "input": "press four is on fire", "output": "maintenance"})
    kept, counts = imported(tmp_path, rows, benchmarks)
    assert kept == rows[:-1]
    assert counts["contaminated"] == 1


def test_a_question_of_the_evaluation_is_found_in_any_turn(tmp_path: Path) -> None:
    asked = "Why does the moon look larger near the horizon at night?"
    benchmarks = evaluation(tmp_path, [asked, "What is the longest river of the whole wide world?"])
    rows = [
        alpaca("And why?", "Because.", history=[[asked, "It only seems so."]]),
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "It seems so."}]},
        alpaca("Why is it dark?", "The sun is down."),
    ]
    assert imported(tmp_path, rows, benchmarks)[1]["contaminated"] == 2


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"instruction": "a", "output": "b", "output": "c"}', "the key 'output' stands twice; remove one"),
        ('{"messages": [{"role": "user", "role": "user", "content": "a"}]}', "the key 'role' stands twice"),
        ('{"instruction": "a \\ud83d", "output": "b"}', r"\ud83d is half a character"),
        ('{"instruction": "a \ud83d", "output": "b"}', r"\ud83d is half a character"),
        ('{"instruction": "a", "output": "b", "history": [["\\udc00", "x"]]}', r"\udc00 is half a character"),
    ],
)
def test_a_row_that_would_lose_something_is_named_by_its_line(
    tmp_path: Path, line: str, sentence: str
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('\n{"instruction": "\\ud83d\\udc4d?", "output": "\\u00e9"}\r\n', encoding="utf-8-sig")
    with path.open("ab") as file:
        file.write(line.encode(errors="surrogatepass"))
    with pytest.raises(InputError) as caught:
        read_alpaca(path)
    assert str(caught.value).startswith(f"{path}, line 3: {sentence}")


# Dialogues


def test_system_and_history_of_an_alpaca_row_are_kept(tmp_path: Path) -> None:
    row = alpaca(
        "And on Sundays?", "Closed.", system="You answer for a museum.", history=[["When?", "At ten."]]
    )
    kept, counts = imported(tmp_path, [row, alpaca("And on Sundays?", "Closed.")])
    assert kept == [row, alpaca("And on Sundays?", "Closed.")]
    assert counts["kept"] == 2


@pytest.mark.parametrize("empty", [{"system": None, "history": None}, {"system": " ", "history": []}])
def test_an_empty_system_and_an_empty_history_change_nothing(tmp_path: Path, empty: dict[str, Any]) -> None:
    assert imported(tmp_path, [alpaca("a", "b") | empty])[0] == [alpaca("a", "b")]


def test_the_last_answer_of_a_chat_row_is_learned_with_all_that_comes_before(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "At ten."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "on Sundays?"}],
        },
        {"role": "assistant", "content": "Closed."},
    ]
    kept, _ = imported(tmp_path, [{"messages": messages, "source": "desk"}])
    assert kept == [alpaca("And\non Sundays?", "Closed.", system="Be brief.", history=[["When?", "At ten."]])]


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (alpaca("a", "b", history=[["q"]]), "'history'"),
        (alpaca("a", "b", history=[["q", 3]]), "'history'"),
        (alpaca("a", "b", history=[["q", ""]]), "'history'"),
        (alpaca("a", "b", history="q"), "'history'"),
        (alpaca("a", "b", system=3), "'system'"),
        (alpaca("a", "b", tools='[{"name": "f"}]'), "'tools'"),
        (alpaca("a", "b", images=["a.png"]), "'images'"),
        (alpaca("a", "b", system_prompt="Be brief."), "'system_prompt'"),
        (alpaca("a", "b", context="The sky is blue."), "'context'"),
        (alpaca("a", "b", messages=[USER, ASSISTANT]), "'instruction'"),
        ({"messages": []}, "'messages'"),
        ({"messages": "hi"}, "'messages'"),
        ({"messages": [USER]}, "assistant"),
        ({"messages": [ASSISTANT]}, "messages[0]"),
        ({"messages": [USER, USER, ASSISTANT]}, "messages[1]"),
        ({"messages": [USER, {"role": "tool", "content": "x"}, ASSISTANT]}, "messages[1]"),
        ({"messages": [USER, ASSISTANT | {"tool_calls": [{"id": "1"}]}]}, "tool_calls"),
        ({"messages": [USER, ASSISTANT | {"content": None}]}, "messages[1]"),
        ({"messages": [USER, {"role": "system", "content": "x"}, ASSISTANT]}, "messages[1]"),
        ({"messages": [USER | {"content": [{"type": "image_url"}]}, ASSISTANT]}, "messages[0]"),
        ({"messages": [USER, ASSISTANT], "system": "Be brief."}, "'system'"),
        ({"messages": [USER, ASSISTANT], "history": [["q", "a"]]}, "'history'"),
        ({"messages": [USER, ASSISTANT], "output": "c"}, "'output'"),
        ({"messages": [USER | {"name": "bob"}, ASSISTANT]}, "'name'"),
        ({"messages": [USER, ASSISTANT | {"reasoning_content": "So."}]}, "'reasoning_content'"),
        ({"messages": [USER, ASSISTANT | {"weight": 0}]}, "weight 0"),
        (alpaca("a", "b", chat_history=[["q", "a"]]), "'chat_history'"),
        (alpaca("a", "b", documents=["The sky is blue."]), "'documents'"),
        (alpaca("a", "b", image="a.png"), "'image'"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "'conversations'"),
        ({"prompt": "a", "completion": "b"}, "'instruction'"),
    ],
)
def test_what_can_t_be_learned_is_refused_by_its_line_and_name(
    tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as raised:
        imported(tmp_path, [alpaca("a", "b"), row])
    assert "line 2" in str(raised.value)
    assert words in str(raised.value)


def test_one_array_of_rows_is_refused_with_the_way_to_lines(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps([alpaca("a", "b")], indent=1), encoding="utf-8")
    with pytest.raises(InputError, match="one object a line"):
        read_alpaca(tmp_path / "mine.json")
