"""A study on the board that was interrupted goes on after the cuts it looked at, and counts them all."""

from __future__ import annotations

from pathlib import Path

from virtual_board.power_cuts.on_board import Progress, counts_of, load_progress
from virtual_board.power_cuts.store_check import Survives
from virtual_board.power_cuts.workload import Step, Timeline

STEPS = [
    Step("start", 0, Survives(None, 0)),
    Step("push", 100, Survives("a", 0)),
    Step("delta", 200, Survives("b", 0)),
]
PROGRESS = Progress(
    "f2fs", Timeline(STEPS, [0, 90, 210]), [(0, None), (1, None), (1, "there is no store")], 40
)


def test_an_interrupted_study_of_the_same_kind_goes_on_where_it_was(tmp_path: Path) -> None:
    PROGRESS.save(tmp_path / "progress.json")
    assert load_progress(tmp_path / "progress.json", "f2fs", 40) == PROGRESS


def test_a_study_of_another_kind_begins_anew(tmp_path: Path) -> None:
    assert load_progress(tmp_path / "progress.json", "f2fs", 40) is None
    PROGRESS.save(tmp_path / "progress.json")
    assert load_progress(tmp_path / "progress.json", "f2fs", 80) is None


def test_a_cut_counts_for_the_step_that_it_came_in() -> None:
    assert [(count.step, count.cuts, count.lost) for count in counts_of(PROGRESS)] == [
        ("push", 1, 0),
        ("delta", 2, 1),
    ]
