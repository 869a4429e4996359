from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgewright.digests import digest_of
from edgewright.errors import InputError
from edgewright.sizes import format_bytes, parse_bytes
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import (
    FinishedStage,
    Run,
    child_fault,
    digest_of_products,
    read_stage,
    unfinished_stage,
)


def make_run(folder: Path) -> Run:
    return Run(folder, Reporter(Console(file=io.StringIO())))


class Work:
    """Writes its product and counts how often it ran; dies first if told to."""

    def __init__(self, text: str = "product", *, dies: bool = False) -> None:
        self.text, self.dies, self.runs = text, dies, 0
        self.found: list[str] = []

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.runs += 1
        self.found = sorted(path.name for path in folder.iterdir())
        (folder / "half").write_text("half done")
        if self.dies:
            raise KeyboardInterrupt
        (folder / "product").write_text(self.text)
        return {"number": 3}


def test_a_stage_done_for_the_same_inputs_is_never_run_twice(tmp_path: Path) -> None:
    work = Work()
    first = make_run(tmp_path).stage("data", {"seed": 1}, work, products=("product",))
    second = make_run(tmp_path).stage("data", {"seed": 1}, work, products=("product",))
    assert work.runs == 1
    assert (second.output_digest, second.summary) == (first.output_digest, {"number": 3})


def test_other_inputs_run_the_stage_again_in_an_empty_folder(tmp_path: Path) -> None:
    make_run(tmp_path).stage("data", {"seed": 1}, Work(), products=("product",))
    again = Work("other")
    stage = make_run(tmp_path).stage("data", {"seed": 2}, again, products=("product",), resumable=True)
    assert again.found == ["started"]
    assert stage.output_digest != digest_of([])


@pytest.mark.parametrize(("resumable", "found"), [(True, ["half", "started"]), (False, ["started"])])
def test_a_killed_stage_is_not_done_and_only_a_resumable_one_keeps_its_folder(
    tmp_path: Path, resumable: bool, found: list[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path).stage("search", {}, Work(dies=True), products=("product",), resumable=resumable)
    again = Work()
    make_run(tmp_path).stage("search", {}, again, products=("product",), resumable=resumable)
    assert again.found == found


PARTS = [f"part-{number}" for number in range(8)]


def write_parts(folder: Path) -> dict[str, Any]:
    for name in PARTS:
        (folder / name).write_text(name)
    return {}


@pytest.mark.parametrize("removals", range(len(PARTS) + 3))
def test_a_kill_while_a_stage_is_cleared_leaves_neither_a_done_stage_without_products_nor_half_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    def stage(seed: int, work: Callable[[Path], dict[str, Any]]) -> FinishedStage:
        return make_run(tmp_path).stage("data", {"seed": seed}, work, products=PARTS, resumable=True)

    stage(1, write_parts)
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        left, unlink = iter(range(removals)), os.unlink

        def unlink_or_die(*path: Any, **options: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            unlink(*path, **options)

        patch.setattr(os, "unlink", unlink_or_die)
        stage(2, Work(dies=True))
    if (done := read_stage(tmp_path / "data")) is not None:
        assert digest_of_products(tmp_path / "data", PARTS) == done["output_digest"]
        return
    assert unfinished_stage(tmp_path) == "data"
    again = Work()
    stage(1, again)
    assert not set(PARTS) & set(again.found) or set(PARTS) < set(again.found)


def test_the_seconds_of_a_stage_are_those_of_all_its_attempts(tmp_path: Path) -> None:
    def attempt(work: Work) -> FinishedStage:
        return make_run(tmp_path).stage("search", {}, work, products=("product",), resumable=True)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            attempt(Work(dies=True))
        began = (tmp_path / "search" / "started").stat().st_mtime
        os.utime(tmp_path / "search" / "half", (began + 1000, began + 1000))  # its last sign of life
    assert 2000 <= attempt(Work()).seconds < 3000
    assert 2000 <= attempt(Work()).seconds < 3000  # kept


def test_a_stage_that_reuses_results_finds_what_other_inputs_left_and_is_not_done_meanwhile(
    tmp_path: Path,
) -> None:
    def attempt(seed: int, work: Work) -> FinishedStage:
        run = make_run(tmp_path)
        return run.stage(
            "evaluate", {"seed": seed}, work, products=("product",), resumable=True, reuses_results=True
        )

    attempt(1, Work())
    killed = Work(dies=True)
    with pytest.raises(KeyboardInterrupt):
        attempt(2, killed)
    assert killed.found == ["half", "product", "started"]
    assert unfinished_stage(tmp_path) == "evaluate"
    again = Work()
    attempt(1, again)
    assert again.runs == 1


def test_the_output_digest_covers_the_products_and_nothing_else(tmp_path: Path) -> None:
    def digest(folder: str, text: str, extra: str) -> str:
        def work(path: Path) -> dict[str, Any]:
            (path / "model").mkdir()
            (path / "model" / "weights").write_text(text)
            (path / "log").write_text(extra)
            return {}

        return make_run(tmp_path / folder).stage("x", {}, work, products=("model",)).output_digest

    assert digest("a", "same", "noise") == digest("b", "same", "other noise")
    assert digest("c", "different", "noise") != digest("d", "same", "noise")


@pytest.mark.parametrize("text", ["{", "[]", "null", "{}", '{"stage": "data"}', "[" * 100_000, "\x00"])
def test_a_damaged_record_is_named(text: str, tmp_path: Path) -> None:
    make_run(tmp_path).stage("data", {}, Work(), products=("product",))
    (tmp_path / "data" / "stage.json").write_text(text)
    with pytest.raises(InputError, match=r"stage\.json is damaged"):
        make_run(tmp_path).stage("data", {}, Work(), products=("product",))


def test_progress_is_plain_lines_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    output = io.StringIO()
    run = Run(tmp_path, Reporter(Console(file=output)))

    def work(folder: Path) -> dict[str, Any]:
        run.reporter.step(4, 4, "tokens, 12 tok/s")
        run.reporter.note("prompts in [data]")
        return {"tokens": 4}

    run.stage("teacher", {}, work, products=())
    assert "teacher 4/4 tokens, 12 tok/s" in output.getvalue()
    assert "  prompts in [data]\n" in output.getvalue()
    assert json.loads((tmp_path / "teacher" / "stage.json").read_text())["summary"] == {"tokens": 4}


@given(st.integers(1, 2**50))
def test_bytes_survive_being_written_and_read(size_bytes: int) -> None:
    assert parse_bytes(f"{size_bytes} B") == size_bytes
    assert parse_bytes(format_bytes(size_bytes)) == pytest.approx(size_bytes, rel=0.05)


@pytest.mark.parametrize("text", ["180", "-1MiB", "0GB", "MiB", "1.2.3GB", "12 parsecs", ""])
def test_a_size_without_unit_or_not_positive_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("returncode", "free_bytes", "words"),
    [
        (3, 2**40, "GPTQ failed with exit code 3; its log"),
        (-9, 2**40, "GPTQ was killed by signal 9, as the kernel does when memory runs out; its log"),
        (-11, 2**40, "GPTQ was killed by signal 11; its log"),
        (1, 4096, "GPTQ failed with exit code 1 and its disk is full; its log"),
    ],
)
def test_how_a_child_process_failed_is_one_sentence_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returncode: int, free_bytes: int, words: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    log = tmp_path / "child.log"
    log.write_text("one\nTypeError: two\n\n")
    fault = child_fault("GPTQ", returncode, log)
    assert fault == f"{words} {log} ends: TypeError: two. Mend that and run again with --resume."
