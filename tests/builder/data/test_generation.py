"""Self-Instruct: what is dropped is counted, what is kept is good, and a kill changes nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgewright.errors import InputError, OutsideError
from edgewright_builder.data.alpaca import read_alpaca
from edgewright_builder.data.data_teacher import Chat, Completion, Rating, TeacherSampling
from edgewright_builder.data.generation_settings import ATTRITION, Assignment, GenerationSettings
from edgewright_builder.data.journal import AnswerJournal
from edgewright_builder.data.presets import load_preset
from edgewright_builder.data.prompts import load_prompts
from edgewright_builder.data.self_instruct import round_size
from edgewright_builder.stages.data import DataResult, contamination_of, generate_data, import_data

WORDS = (
    "wind rain ice lava moss frog iron salt moon star",
    "leaf root bird wave sand fire rock tree seed fish",
)


class ScriptedTeacher:
    """Answers by the prompt's last words and the seed; each fault a model makes comes at a known rate."""

    identity = "scripted"

    def __init__(self, delay_seconds: float = 0.0) -> None:
        self.calls = 0
        self.fail_after = 10**6
        self._delay_seconds = delay_seconds

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_tokens: int,
        sampling: TeacherSampling,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[Completion]:
        self.calls += 1
        if self.calls > self.fail_after:
            raise OutsideError("T1 is gone")
        time.sleep(self._delay_seconds)
        return [
            Completion(self._text(chat[-1]["content"], seed + i), 5, True) for i, chat in enumerate(chats)
        ]

    def rate(self, chats: Sequence[Chat], *, seed: int) -> list[Rating]:
        self.calls += 1
        return [self._rating(chat[-1]["content"]) for chat in chats]

    def _rating(self, prompt: str) -> Rating:
        if "moss" in prompt:
            return Rating(None, "Well done!")
        return Rating(2.0, "2") if "lava" in prompt else Rating(4.0, "4")

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [0.1 if "lava" in question else 1.0 for question, _ in pairs]

    def _text(self, prompt: str, seed: int) -> str:
        picked = random.Random(seed).choices(" ".join(WORDS).split(), k=4)
        if prompt.startswith("Name "):
            return ", ".join(picked)
        if prompt.startswith("Write one "):
            if seed % 11 == 0:
                return "no question"
            return (
                "Why so?"
                if seed % 13 == 0
                else f"Why does {picked[0]} {picked[1]} the {picked[2]} {picked[3]}?"
            )
        return "cut off" if seed % 17 == 0 else f"Because {picked[0]} meets {picked[1]} there. And"


def assignment(benchmarks: Path | None = None, **settings: object) -> Assignment:
    return Assignment(
        load_preset("arc_easy"),
        load_prompts(),
        GenerationSettings(**{"pairs": 60, "batch_size": 8, **settings}),  # type: ignore[arg-type]
        contamination_of(benchmarks),
    )


def silent(done: int, total: int, text: str) -> None:
    """No progress shown."""


def generate(folder: Path, client: ScriptedTeacher | None = None, **settings: object) -> DataResult:
    return generate_data(client or ScriptedTeacher(), assignment(**settings), folder, silent)  # type: ignore[arg-type]


def test_every_generated_question_is_kept_or_counted_once(tmp_path: Path) -> None:
    result = generate(tmp_path)
    counts = json.loads((tmp_path / "attrition.json").read_text())
    assert counts == result.attrition
    assert set(counts) == {"generated", *ATTRITION}
    assert counts["generated"] == sum(counts[name] for name in ATTRITION)
    for fault in (
        "question_unparseable",
        "question_too_short",
        "answer_unparseable",
        "unrated",
        "below_minimum_score",
    ):
        assert counts[fault] > 0, fault
    assert counts["kept"] == result.rows == 60 == len(read_alpaca(result.path))


def test_rows_are_alpaca_and_answers_whole_sentences(tmp_path: Path) -> None:
    for line in generate(tmp_path).path.read_text().splitlines():
        row = json.loads(line)
        assert list(row) == ["instruction", "input", "output"]
        assert row["instruction"].endswith("?")
        assert row["output"].endswith("there.")
        assert "moss" not in row["instruction"] + row["output"]
        assert "lava" not in row["instruction"] + row["output"]


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    first, second, other = (generate(tmp_path / str(i), seed=seed).path for i, seed in enumerate((3, 3, 4)))
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_a_finished_generation_asks_nothing_again(tmp_path: Path) -> None:
    generate(tmp_path)
    again = ScriptedTeacher()
    generate(tmp_path, again)
    assert again.calls == 0


@pytest.mark.parametrize("calls", [1, 4, 11])
def test_a_generation_that_failed_anywhere_resumes_to_the_same_bytes(calls: int, tmp_path: Path) -> None:
    expected = generate(tmp_path / "whole").path.read_bytes()
    failing = ScriptedTeacher()
    failing.fail_after = calls
    with pytest.raises(OutsideError, match="gone"):
        generate(tmp_path / "failed", failing)
    again = ScriptedTeacher()
    assert generate(tmp_path / "failed", again).path.read_bytes() == expected
    assert again.calls > 0


def test_the_relevance_critic_uses_its_own_minimum(tmp_path: Path) -> None:
    counts = generate(tmp_path, critic="relevance").attrition
    assert counts["unrated"] == 0
    assert counts["below_minimum_score"] > 0


def test_questions_of_the_evaluation_files_are_dropped(tmp_path: Path) -> None:
    clean = read_alpaca(generate(tmp_path / "a").path)
    benchmarks = tmp_path / "benchmarks" / "arc_easy"
    benchmarks.mkdir(parents=True)
    rows = [{"question": row.instruction, "choices": ["a", "b"], "answer": 0} for row in clean[:5]]
    (benchmarks / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = generate_data(ScriptedTeacher(), assignment(benchmarks.parent), tmp_path / "b", silent)
    assert result.attrition["contaminated"] >= 5
    assert not {row["question"] for row in rows} & {row.instruction for row in read_alpaca(result.path)}


def test_nothing_left_is_an_error_with_the_counts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"left no pair for arc_easy.*below minimum score \d+") as raised:
        generate(tmp_path, pairs=4, minimum_score=5.0)
    assert "generated" in str(raised.value)
    assert not (tmp_path / "data.jsonl").exists()


class UselessTeacher(ScriptedTeacher):
    """Writes the same useless text at one step of the work."""

    def __init__(self, step: str, text: str) -> None:
        super().__init__()
        self._step, self._useless = step, text

    def _text(self, prompt: str, seed: int) -> str:
        step = "questions" if prompt.startswith("Write one ") else "answers"
        step = "topics" if prompt.startswith("Name ") else step
        return self._useless if step == self._step else super()._text(prompt, seed)

    def _rating(self, prompt: str) -> Rating:
        return Rating(None, self._useless) if self._step == "rubric" else super()._rating(prompt)


USELESS = "I am sorry, but I can only talk about cars"


@pytest.mark.parametrize(
    ("step", "text", "most_calls"),
    [
        ("questions", USELESS, 4), ("questions", "", 4), ("questions", "Why?", 4), ("answers", USELESS, 14),
        ("rubric", USELESS, 24),
    ],
)  # fmt: skip
def test_a_first_batch_of_no_use_stops_the_build_and_shows_what_t1_wrote(
    step: str, text: str, most_calls: int, tmp_path: Path
) -> None:
    teacher = UselessTeacher(step, text)
    with pytest.raises(InputError, match="T1 scripted left no pair for arc_easy") as raised:
        generate(tmp_path, teacher)
    assert teacher.calls <= most_calls
    assert (repr(text) if text else "nothing") in str(raised.value)
    assert "--resume" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_with_one_question_a_batch_the_first_eight_decide(tmp_path: Path) -> None:
    teacher = UselessTeacher("questions", USELESS)
    with pytest.raises(InputError, match="first 8"):
        generate(tmp_path, teacher, batch_size=1)
    assert teacher.calls == 20 + 8


def test_scores_that_none_of_the_first_batch_reaches_are_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`data.minimum_score` is 5.*the best score is 4"):
        generate(tmp_path, minimum_score=5.0)


def test_topics_of_no_use_leave_the_key_phrases(tmp_path: Path) -> None:
    assert generate(tmp_path, UselessTeacher("topics", "")).rows == 60


def test_a_build_that_a_useless_teacher_stopped_goes_on_with_a_good_one(tmp_path: Path) -> None:
    expected = generate(tmp_path / "whole").path.read_bytes()
    for step in ("questions", "answers", "rubric"):
        with pytest.raises(InputError):
            generate(tmp_path / "stopped", UselessTeacher(step, USELESS))
    assert generate(tmp_path / "stopped").path.read_bytes() == expected


GENERATE = """
import sys
from pathlib import Path
from tests.builder.data.test_generation import ScriptedTeacher, generate
generate(Path(sys.argv[1]), ScriptedTeacher(delay_seconds=0.02))
"""


@pytest.mark.crash
def test_a_killed_generation_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    expected = generate(tmp_path / "whole").path.read_bytes()
    folder = tmp_path / "killed"
    kills = 0
    for batches in (3, 9, 20, 10**6):
        process = subprocess.Popen(
            [sys.executable, "-c", GENERATE, str(folder)],
            cwd=Path(__file__).parents[3],
            env=os.environ | {"PYTHONPATH": "."},
        )
        while process.poll() is None and journal_lines(folder) < batches:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    assert (folder / "data.jsonl").read_bytes() == expected


def journal_lines(folder: Path) -> int:
    path = folder / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_line_cut_by_a_crash_is_dropped_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = AnswerJournal(path)
    journal.put("a", [1])
    journal.put("b", [2])
    path.write_bytes(path.read_bytes()[:-3])
    resumed = AnswerJournal(path)
    assert (resumed.get("a"), resumed.get("b")) == ([1], None)
    resumed.put("b", [2])
    assert AnswerJournal(path).get("b") == [2]


def test_a_round_asks_for_what_is_missing_by_the_yield_so_far() -> None:
    assert round_size(600, 0, 0, 32) == 750
    assert round_size(600, 400, 800, 32) == 400
    assert round_size(600, 0, 750, 32) == 1200
    assert round_size(600, 599, 750, 32) == 32


def test_a_file_of_ones_own_is_counted_and_what_nobody_learns_from_is_ignored(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Why is the sky blue?", "input": "", "output": "Air spreads blue light."},
        {"instruction": "Why is the sky blue?", "input": "", "output": "Air spreads blue light."},
        {"instruction": "Add", "input": "2 and 3", "output": "5", "source": "mine"},
    ]
    source = tmp_path / "mine.jsonl"
    source.write_text("\n\n".join(json.dumps(row) for row in rows))
    result = import_data(source, contamination_of(None), tmp_path / "out")
    assert result.attrition == {"generated": 3, "contaminated": 0, "duplicate": 1, "kept": 2}
    assert [row.instruction for row in read_alpaca(result.path)] == ["Why is the sky blue?", "Add"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: expected a JSON object, and this is no JSON"),
        ("[1]", "line 2: expected a JSON object, found list"),
        ('{"instruction": "", "output": "x"}', "line 2: expected a text in 'instruction', found ''"),
        ('{"instruction": "x"}', "line 2: expected a text in 'output', found None"),
        ('{"instruction": "x", "input": 3, "output": "y"}', "line 2: expected a text in 'input', found 3"),
    ],
)
def test_a_bad_row_is_named_by_its_line(line: str, words: str, tmp_path: Path) -> None:
    source = tmp_path / "mine.jsonl"
    source.write_text('{"instruction": "a", "output": "b"}\n' + line + "\n")
    with pytest.raises(InputError) as raised:
        import_data(source, contamination_of(None), tmp_path / "out")
    assert words in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_an_empty_or_missing_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="the file is empty"):
        import_data(tmp_path / "empty.jsonl", contamination_of(None), tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read"):
        import_data(tmp_path / "no.jsonl", contamination_of(None), tmp_path / "out")
