"""Evaluation of several models: accuracies, pairs, and nothing done twice."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgewright.errors import OutsideError
from edgewright_builder.pipeline.model_pipeline import exported_identity
from edgewright_builder.recipe.model_recipe import Recipe, ServingSettings
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.scoring.local import LocalScorer
from edgewright_builder.scoring.scorer import ScoreItem
from edgewright_builder.stages.evaluate import EvaluatedModel, evaluate, run_evaluate
from edgewright_builder.tasks.loading import Task, load_task
from edgewright_builder.tasks.results import run_task
from tests.support.tiny_models import tiny_model, tiny_tokenizer

QUIZ = Path(__file__).parents[3] / "examples" / "science_quiz.jsonl"


class Oracle:
    """Prefers the right choice on the first `known` questions of the quiz, the first choice on the others."""

    def __init__(self, known: int) -> None:
        rows = [json.loads(line) for line in QUIZ.read_text().splitlines()]
        self._right = {
            f"Question: {r['question']}\nAnswer:": f" {r['choices'][r['answer']]}" for r in rows[:known]
        }
        self.calls = 0
        self.opened = 0
        self.fail_after = 10**6
        self.contexts: list[str] = []

    def score(self, items: Sequence[ScoreItem]) -> list[list[float]]:
        self.calls += 1
        if self.calls > self.fail_after:
            raise OutsideError("the board went away")
        self.contexts += [context for context, _ in items]
        return [[self._value(context, i, text) for i, text in enumerate(texts)] for context, texts in items]

    def _value(self, context: str, index: int, text: str) -> float:
        if context in self._right:
            return -0.01 * len(text) if self._right[context] == text else -100.0 * len(text)
        return -0.01 * len(text) if index == 0 else -100.0 * len(text)

    @contextmanager
    def open(self) -> Iterator[Oracle]:
        self.opened += 1
        yield self


def model(name: str, oracle: Oracle, identity: str = "1") -> EvaluatedModel:
    return EvaluatedModel(name, f"{name}-{identity}", oracle.open)


def quiz(limit: int = 100) -> Task:
    return load_task(str(QUIZ), limit=limit)


def silent(done: int, total: int, text: str) -> None:
    """No progress shown."""


def test_accuracies_and_paired_differences_are_written(tmp_path: Path) -> None:
    models = [model("student", Oracle(0)), model("finetuned", Oracle(100))]
    evaluation = evaluate(models, [quiz()], tmp_path, on_progress=silent)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == evaluation.summary
    entry = written["tasks"]["science_quiz"]
    assert entry["rows"] == 100
    assert entry["metric"] == "acc_norm"
    assert (
        entry["models"]["student"]["acc"]["value"] == 0.25
    )  # the right answer stands first in a quarter of the rows
    assert entry["models"]["finetuned"]["acc"] == {"value": 1.0, "standard_error": 0.0, "rows": 100}
    assert entry["models"]["student"]["difference"] == {"value": 0.0, "standard_error": 0.0}
    assert entry["models"]["finetuned"]["difference"]["value"] == pytest.approx(0.75)
    rows = json.loads((tmp_path / "student" / "science_quiz.json").read_text())["outcomes"]
    assert sum(row["acc"] for row in rows) == 25
    assert len(rows[0]["log_likelihoods"]) == 4


def test_finished_pairs_are_neither_opened_nor_run_again(tmp_path: Path) -> None:
    first = evaluate([model("student", Oracle(40))], [quiz()], tmp_path, on_progress=silent)
    again = Oracle(40)
    second = evaluate([model("student", again)], [quiz()], tmp_path, on_progress=silent)
    assert again.opened == 0
    assert second == first


@pytest.mark.parametrize(("identity", "limit"), [("2", 100), ("1", 10)])
def test_another_model_or_other_rows_are_run(identity: str, limit: int, tmp_path: Path) -> None:
    evaluate([model("student", Oracle(40))], [quiz()], tmp_path, on_progress=silent)
    again = Oracle(40)
    evaluate([model("student", again, identity)], [quiz(limit)], tmp_path, on_progress=silent)
    assert again.opened == 1


def test_what_other_models_and_rows_left_is_gone_and_the_rest_is_kept(tmp_path: Path) -> None:
    models = [model("student", Oracle(40)), model("recovered", Oracle(40))]
    evaluate(models, [quiz()], tmp_path, on_progress=silent)
    kept = Oracle(40)
    evaluate([model("student", kept)], [quiz()], tmp_path, on_progress=silent)
    assert kept.opened == 0
    assert [path.parent.name for path in tmp_path.glob("*/*.json")] == ["student"]
    failing = Oracle(40)
    failing.fail_after = 0
    with pytest.raises(OutsideError):
        evaluate([model("student", failing, "2")], [quiz()], tmp_path, on_progress=silent)
    assert not list(tmp_path.glob("**/*.json"))  # no report takes the old model's rows for the new one's


def job_of(folder: Path, **evaluation: Any) -> Distillation:
    """A recipe whose student has a chat template that writes `Student asks: …`."""
    write_tokenizer(folder / "student", "Student asks: ")
    values = {
        "name": "x", "task": "t", "student": {"model": str(folder / "student")}, "data": {"file": "pairs.jsonl"},
        "teachers": {"knowledge": {"model": str(folder / "teacher")}},
        "evaluate": {"tasks": [str(QUIZ)], "limit": 4, **evaluation},
    }  # fmt: skip
    run = Run(folder / "run", Reporter(Console(file=io.StringIO())))
    return Distillation(Recipe.model_validate(values), run, str(folder / "student"), str(folder / "teacher"))


def write_tokenizer(folder: Path, asks: str | None) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = asks and asks + "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


def test_a_finished_pair_is_kept_when_the_stage_runs_again_for_another_reason(tmp_path: Path) -> None:
    for identity in ("1", "2"):
        student, exported = Oracle(4), Oracle(4)
        models = [model("student", student), model("exported", exported, identity)]
        inputs = {each.name: each.identity for each in models}
        stage = run_evaluate(job_of(tmp_path), models, inputs)
        assert (student.opened, exported.opened) == (int(identity == "1"), 1)
    assert stage.summary == {"science_quiz student": 1.0, "science_quiz exported": 1.0}


@pytest.mark.parametrize(
    ("template", "asks"), [("Teacher asks: ", "Teacher asks: "), (None, "Student asks: ")]
)
def test_a_chat_asks_the_teacher_in_its_own_template_if_it_has_one(
    tmp_path: Path, template: str | None, asks: str
) -> None:
    write_tokenizer(tmp_path / "teacher", template)
    teacher, student = Oracle(0), Oracle(0)
    models = [
        EvaluatedModel("teacher", "1", teacher.open, tokenizer=tmp_path / "teacher"),
        EvaluatedModel("student", "2", student.open),
    ]
    run_evaluate(job_of(tmp_path, quiz="chat"), models, {})
    assert {context.split(": ")[0] for context in student.contexts} == {"Student asks"}
    assert all(context.startswith(asks) for context in teacher.contexts)


@pytest.mark.parametrize(
    ("serving", "matters"),
    [
        ({"tpot_seconds_max": 0.1}, False), ({"ttft_seconds_max": 1.0}, False), ({"context_tokens": 512}, True),
        ({"concurrency": 2}, True), ({"engine": "vllm"}, True),
    ],
)  # fmt: skip
def test_a_limit_that_only_a_board_keeps_to_evaluates_nothing_anew(
    serving: dict[str, Any], matters: bool
) -> None:
    exported = FinishedStage("export", Path(), "digest", 0.0, {})
    before = exported_identity(exported, ServingSettings())
    assert (exported_identity(exported, ServingSettings.model_validate(serving)) != before) == matters


def test_models_of_the_same_weights_are_scored_once(tmp_path: Path) -> None:
    teacher, student = Oracle(40), Oracle(40)
    models = [EvaluatedModel("teacher", "one", teacher.open), EvaluatedModel("student", "one", student.open)]
    evaluation = evaluate(models, [quiz()], tmp_path, on_progress=silent)
    assert (teacher.opened, student.opened) == (1, 0)
    assert (tmp_path / "student" / "science_quiz.json").read_bytes() == (
        tmp_path / "teacher" / "science_quiz.json"
    ).read_bytes()
    assert evaluation.results["student", "science_quiz"] == evaluation.results["teacher", "science_quiz"]


def test_a_failure_keeps_what_was_finished(tmp_path: Path) -> None:
    board = Oracle(100)
    board.fail_after = 1
    models = [model("student", Oracle(10)), model("board", board)]
    with pytest.raises(OutsideError, match="went away"):
        evaluate(models, [quiz()], tmp_path, on_progress=silent)
    assert (tmp_path / "student" / "science_quiz.json").exists()
    assert not (tmp_path / "board").exists()
    assert not (tmp_path / "results.json").exists()


def test_progress_ends_at_the_number_of_rows(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    evaluate([model("student", Oracle(0))], [quiz(70)], tmp_path, on_progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == [64, 70]
    assert seen[-1][2].startswith("student: science_quiz 0.")


def test_a_real_model_scores_every_row(tmp_path: Path) -> None:
    result = run_task(LocalScorer(tiny_model(), tiny_tokenizer()), quiz(20), on_progress=silent)
    assert len(result.outcomes) == 20
    assert all(len(outcome.log_likelihoods) == 4 for outcome in result.outcomes)
    assert all(value < 0 for outcome in result.outcomes for value in outcome.log_likelihoods)
    assert 0 <= result.accuracy("acc").value <= 1
