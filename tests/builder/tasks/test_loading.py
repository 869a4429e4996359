"""Tasks from files and from the harness: the same questions, and clear words on bad rows."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import InputError, OutsideError
from edgewright_builder.scoring.scorer import ScoreItem
from edgewright_builder.tasks.definitions import DEFINITIONS, Question, chat_quiz
from edgewright_builder.tasks.harness import harness_questions
from edgewright_builder.tasks.loading import evaluation_texts, load_task, require_distinct
from edgewright_builder.tasks.results import run_task

QUIZ = Path(__file__).parents[3] / "examples" / "science_quiz.jsonl"

# One made-up row per task: as our files hold it, and as the hub's dataset does.
LETTERED = {"label": ["A", "B", "C", "D", "E"], "text": ["a bed", "a car", "a sea", "a hat", "a tree"]}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "arc_easy": (
        {"question": "What melts?", "choices": ["ice", "sand"], "answer": 0},
        {
            "question": "What melts?",
            "choices": {"text": ["ice", "sand"], "label": ["A", "B"]},
            "answerKey": "A",
        },
    ),
    "commonsense_qa": (
        {"question": " Where do you sleep? ", "choices": LETTERED["text"], "answer": 0},
        {"question": " Where do you sleep? ", "choices": LETTERED, "answerKey": "A"},
    ),
    "hellaswag": (
        {
            "question": "Cooking: A man fries an egg. He",
            "choices": ["eats it.", "é flies.", "x.", "y."],
            "answer": 1,
        },
        {
            "activity_label": "Cooking",
            "ctx_a": "A man fries an egg.",
            "ctx_b": "he",
            "endings": ["eats [step] it.", "é flies.", "x.", "y."],
            "label": "1",
        },
    ),
    "mmlu": (
        {
            "question": "2 + 2?",
            "choices": ["1", "2", "3", "4"],
            "answer": 3,
            "subject": "high_school_statistics",
        },
        {
            "question": "2 + 2?",
            "choices": ["1", "2", "3", "4"],
            "answer": 3,
            "subject": "high_school_statistics",
        },
    ),
    "openbookqa": (
        {"question": "A magnet pulls", "choices": ["a nail", "a leaf"], "answer": 0},
        {
            "question_stem": "A magnet pulls",
            "choices": {"text": ["a nail", "a leaf"], "label": ["A", "B"]},
            "answerKey": "A",
        },
    ),
    "piqa": (
        {"question": "Cut a cake", "choices": ["use a knife", "use a ball"], "answer": 0},
        {"goal": "Cut a cake", "sol1": "use a knife", "sol2": "use a ball", "label": 0},
    ),
    "social_i_qa": (
        {"context": "Ann fell.", "question": "How is Ann?", "choices": ["hurt", "glad", "rich"], "answer": 0},
        {
            "context": "Ann fell.",
            "question": "How is Ann?",
            "answerA": "hurt",
            "answerB": "glad",
            "answerC": "rich",
            "label": "1",
        },
    ),
    "winogrande": (
        {"question": "Ann thanked Bea because _ had helped.", "choices": ["Ann", "Bea"], "answer": 1},
        {
            "sentence": "Ann thanked Bea because _ had helped.",
            "option1": "Ann",
            "option2": "Bea",
            "answer": "2",
        },
    ),
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@lru_cache
def task_manager() -> Any:
    """The harness's own definitions, of our tasks' folders only: its whole index takes seconds to read."""
    lm_eval_tasks = pytest.importorskip("lm_eval.tasks", reason="lm-evaluation-harness is an extra")
    root = Path(lm_eval_tasks.__file__).parent
    folders = (
        "arc",
        "commonsense_qa",
        "hellaswag",
        "mmlu/default",
        "openbookqa",
        "piqa",
        "siqa",
        "winogrande",
    )
    return lm_eval_tasks.TaskManager(
        include_path=[str(root / name) for name in folders], include_defaults=False
    )


def harness_tasks(doc: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The harness's own task definitions, with a dataset of one row in the hub's place."""
    datasets = pytest.importorskip("datasets", reason="lm-evaluation-harness is an extra")
    manager = task_manager()
    rows = datasets.Dataset.from_list([doc])
    hub = dict.fromkeys(("test", "validation", "train", "dev"), rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: datasets.DatasetDict(hub))
    return manager


def harness_question(name: str, doc: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Question:
    """The document as the harness asks it."""
    manager = harness_tasks(doc, monkeypatch)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda: manager)
    leaf = "mmlu_high_school_statistics" if name == "mmlu" else DEFINITIONS[name].harness_name
    (question,) = harness_questions(leaf)
    return question


@pytest.mark.parametrize("name", list(DEFINITIONS))
def test_a_question_is_asked_as_the_harness_asks_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, doc = ROWS[name]
    write(tmp_path / name / "eval.jsonl", [row])
    (question,) = load_task(name, tmp_path).questions
    expected = harness_question(name, doc, monkeypatch)
    assert question.choices == expected.choices
    assert question.answer == expected.answer


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        (["éééé", "abcde"], [-4.2, -5.0]),  # by characters the second, by bytes the first
        (["水", "ab"], [-1.0, -1.9]),
        (["abc", "ééé"], [-3.0, -3.1]),
    ],
)
def test_a_choice_is_judged_by_its_characters_as_the_harness_judges_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: list[str], values: list[float]
) -> None:
    class Scorer:
        def score(self, items: Sequence[ScoreItem]) -> list[list[float]]:
            return [values for _ in items]

    write(tmp_path / "arc_easy" / "eval.jsonl", [{"question": "Q?", "choices": choices, "answer": 1}])
    (ours,) = run_task(Scorer(), load_task("arc_easy", tmp_path), on_progress=lambda *_: None).outcomes
    doc = {"question": "Q?", "choices": {"text": choices, "label": ["A", "B"]}, "answerKey": "B"}
    (task,) = harness_tasks(doc, monkeypatch).load(["arc_easy"])["tasks"].values()
    theirs = task.process_results(next(iter(task.test_docs())), [(value, False) for value in values])
    assert (ours.acc, ours.acc_norm) == (theirs["acc"] == 1, theirs["acc_norm"] == 1)


def test_the_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an extra")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    manager = task_manager()
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda: manager)
    with pytest.raises(OutsideError, match=r"arc_easy could not be loaded from the hub .*--benchmarks\.$"):
        load_task("arc_easy")


def test_a_missing_harness_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"edgewright\[harness\]"):
        load_task("piqa")


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "question": f"q{i}?", "choices": ["a", "b"], "answer": 0} for i in range(5)]
    path = write(tmp_path / "quiz.jsonl", rows)
    task = load_task(str(path), limit=2)
    assert [question.id for question in task.questions] == ["r0", "r1"]
    assert task.digest() != load_task(str(path)).digest()
    assert task.digest() == load_task(str(path), limit=2).digest()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"choices": ["a", "b"], "answer": 0}, "'question'"),
        ({"question": "q", "choices": ["a"], "answer": 0}, "'choices'"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "0 to 1 in 'answer', found 2"),
        ({"question": "q", "choices": ["a", "b"], "answer": "A"}, "found 'A'"),
    ],
)
def test_a_bad_row_is_named_by_its_line(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "quiz.jsonl", [{"question": "q", "choices": ["a", "b"], "answer": 0}, row])
    with pytest.raises(InputError, match="line 2") as raised:
        load_task(str(path))
    assert words in str(raised.value)


def test_a_field_the_task_needs_is_named(tmp_path: Path) -> None:
    write(tmp_path / "mmlu" / "eval.jsonl", [{"question": "q", "choices": ["a", "b"], "answer": 0}])
    with pytest.raises(InputError, match="task mmlu needs the field 'subject'"):
        load_task("mmlu", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("arc_hard", "Unknown task 'arc_hard'"), ("no.jsonl", "there is no file"), ("piqa", "no file")],
)
def test_a_task_that_is_not_there_is_a_clear_error(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_task(name, tmp_path)


@pytest.mark.parametrize(
    "names", [["a/eval.jsonl", "b/eval.jsonl"], ["piqa", "mine/piqa.jsonl"], ["piqa", "arc_easy", "piqa"]]
)
def test_two_tasks_of_one_name_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match=rf"The tasks .* and {names[-1]} are both called (eval|piqa)"):
        require_distinct(names)
    require_distinct(["piqa", "a/eval.jsonl", "eval.json"])


def test_evaluation_texts_are_the_questions_of_all_tasks(tmp_path: Path) -> None:
    for name, (row, _) in ROWS.items():
        write(tmp_path / name / "eval.jsonl", [row])
    texts = evaluation_texts(tmp_path)
    assert len(texts) == len(ROWS)
    assert "Ann fell. How is Ann?" in texts


def test_the_science_quiz_is_balanced_and_without_repetition() -> None:
    task = load_task(str(QUIZ))
    assert len(task.questions) == 100
    assert Counter(question.answer for question in task.questions) == {0: 25, 1: 25, 2: 25, 3: 25}
    assert len({question.choices[0].context for question in task.questions}) == 100
    assert all(len({choice.continuation for choice in q.choices}) == 4 for q in task.questions)


def test_a_quiz_is_asked_in_the_chat_template_if_wished(tmp_path: Path) -> None:
    path = tmp_path / "quiz.jsonl"
    path.write_text(
        '{"question": "Which?", "choices": ["this", "that one"], "answer": 1}\n', encoding="utf-8"
    )
    plain = load_task(str(path))
    chat = load_task(str(path), quiz=chat_quiz(lambda question: f"<user>{question}<assistant>"))
    assert [(c.context, c.continuation, c.characters) for c in chat.questions[0].choices] == [
        ("<user>Which?<assistant>", "this", 4),
        ("<user>Which?<assistant>", "that one", 8),
    ]
    assert chat.digest() != plain.digest()


def lettered_file(folder: Path, choices: int, task: str) -> Path:
    row = {
        "question": "Which?", "choices": [f"thing {number}" for number in range(choices)],
        "answer": choices - 1, "subject": "things",
    }  # fmt: skip
    (folder / task).mkdir()
    (folder / task / "eval.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("task", ["mmlu", "commonsense_qa"])
@pytest.mark.parametrize("choices", [2, 6, 26])
def test_up_to_26_choices_are_listed_by_letter(tmp_path: Path, choices: int, task: str) -> None:
    (question,) = load_task(task, lettered_file(tmp_path, choices, task)).questions
    last = chr(ord("A") + choices - 1)
    assert [choice.continuation for choice in question.choices][-1] == f" {last}"
    assert len(question.choices) == choices
    assert f"\n{last}. thing {choices - 1}\nAnswer:" in question.choices[0].context


@pytest.mark.parametrize("task", ["mmlu", "commonsense_qa"])
def test_more_choices_than_letters_are_refused_with_the_line(tmp_path: Path, task: str) -> None:
    with pytest.raises(
        InputError, match=r"eval\.jsonl, line 1: 27 choices are listed by letter.* 26 at most"
    ):
        load_task(task, lettered_file(tmp_path, 27, task))
