"""The tables of a study: what each level reaches, and how its cells were trained."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from edgewright.errors import InputError
from edgewright_builder.study.cells import cells_of
from edgewright_builder.study.level_means import level_tables, training_lines
from edgewright_builder.study.paired_contrasts import contrasts
from edgewright_builder.study.report import answer_of, write_study_report
from edgewright_builder.study.results import CellRow, read_rows, rows_of, write_results
from edgewright_builder.study.study_file import StudyFile
from tests.builder.study.test_study_file import STUDY, written

TRAINING = {
    "optimizer": "adam", "learning_rate": 1e-3, "lora_rank": 8, "lora_scale": 2.0, "temperature": 1.0, "alpha": 1.0,
    "weight_decay": 0.0, "epochs": 1,
}  # fmt: skip


def result(optimizer: str, seed: int, task: str, **changes: Any) -> dict[str, Any]:
    """One cell: Adam loses 4 points and Muon 2, a tenth more with each seed."""
    drop = {"adam": 0.04, "muon": 0.02}[optimizer] + 0.001 * seed
    return {
        "tuned": None, "hyperparameters": TRAINING | {"optimizer": optimizer} | changes,
        "kl_16": 0.2, "kl_pairs": 0.1, "kl_general": 0.3, "stages": {},
        "tasks": {task: {"accuracy_16": 0.5, "accuracy_4": 0.5 - drop, "rows": 100}},
    }  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> StudyFile:
    factors = STUDY["factors"] | {"task": {"arc": {"task": "arc_easy"}, "piqa": {"task": "piqa"}}}
    compare = STUDY["compare"] | {"across": "task"}
    return written(tmp_path, factors=factors, compare=compare, surface=["task", "finetune.seed"])


@pytest.fixture
def results(study: StudyFile) -> dict[str, dict[str, Any]]:
    return {
        cell.name: result(
            cell.levels["hyperparameters.optimizer"], int(cell.levels["finetune.seed"]), cell.levels["task"]
        )
        for cell in cells_of(study)
    }


@pytest.fixture
def rows(study: StudyFile, results: dict[str, dict[str, Any]]) -> list[CellRow]:
    return rows_of(cells_of(study), results)


def test_each_level_has_its_mean_and_error_over_the_replicates_of_each_group(
    study: StudyFile, rows: list[CellRow]
) -> None:
    tables = {table.title: table for table in level_tables(study, rows)}
    lost = tables["accuracy lost to 4 bits"]
    assert (lost.groups, lost.levels) == (("arc", "piqa"), ("adam", "muon"))
    mean = lost.means["arc", "adam"]
    assert mean.value == pytest.approx(4.3)
    assert mean.cells == 5
    assert mean.standard_error == pytest.approx(0.1 * 2.5**0.5 / 5**0.5)
    assert lost.lines() == [
        ["", "adam", "muon"],
        ["arc", "4.3 ± 0.1", "2.3 ± 0.1"],
        ["piqa", "4.3 ± 0.1", "2.3 ± 0.1"],
    ]
    assert tables["accuracy at 4 bits"].means["piqa", "muon"].value == pytest.approx(47.7)


def test_a_place_without_a_finished_cell_stays_empty(study: StudyFile, rows: list[CellRow]) -> None:
    kept = [
        row
        for row in rows
        if row.levels["task"] == "arc" or row.levels["hyperparameters.optimizer"] == "adam"
    ]
    lost = next(table for table in level_tables(study, kept) if table.title == "accuracy lost to 4 bits")
    assert lost.lines()[2] == ["piqa", "4.3 ± 0.1", ""]


def test_a_surface_has_a_mean_for_each_combination_of_two_factors(
    study: StudyFile, rows: list[CellRow]
) -> None:
    table = next(table for table in level_tables(study, rows) if "by task and finetune.seed" in table.title)
    assert (table.groups, table.levels) == (("arc", "piqa"), ("1", "2", "3", "4", "5"))
    assert table.means["arc", "3"].cells == 2  # both optimizers


def test_cells_that_were_trained_alike_share_a_line(
    study: StudyFile, results: dict[str, dict[str, Any]]
) -> None:
    cells = cells_of(study)
    searched = cells[0]
    results[searched.name]["hyperparameters"]["alpha"] = 0.7
    untrained = next(cell for cell in cells if cell.levels["hyperparameters.optimizer"] == "muon")
    results[untrained.name]["hyperparameters"]["epochs"] = 0
    header, *lines = training_lines(study, rows_of(cells, results))
    records = [dict(zip(header, line, strict=True)) for line in lines]
    assert [record["cells"] for record in records if record["alpha"] == "0.7"] == ["1"]
    assert [record["optimizer"] for record in records if record["epochs"] == "0"] == [""]
    assert sum(int(record["cells"]) for record in records) == len(cells)
    assert len(records) == 2 * 2 + 2


def test_nothing_is_decided_before_every_group_has_its_pairs(study: StudyFile, rows: list[CellRow]) -> None:
    whole = {contrast.outcome.key: contrast for contrast in contrasts(study, rows)}
    assert answer_of(whole["accuracy_drop"]) == "a difference"
    assert answer_of(whole["kl_pairs"]) == ""
    first_four = [row for row in rows if row.levels["finetune.seed"] != "5"]
    part = {contrast.outcome.key: contrast for contrast in contrasts(study, first_four)}
    assert answer_of(part["accuracy_drop"]) == "not decided: 2 pairs are missing"


def test_groups_with_a_single_pair_or_none_are_missing_too(study: StudyFile, rows: list[CellRow]) -> None:
    arc = [row for row in rows if row.levels["task"] == "arc"]
    single = [row for row in rows if row.levels["task"] == "piqa" and row.levels["finetune.seed"] == "1"]
    for kept, missing in ((arc, 5), ([*arc, *single], 4)):
        part = {contrast.outcome.key: contrast for contrast in contrasts(study, kept)}
        assert answer_of(part["accuracy_drop"]) == f"not decided: {missing} pairs are missing"


def test_the_report_writes_every_table_and_a_picture_of_each(
    study: StudyFile, results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    cells = cells_of(study)
    write_results(tmp_path, cells, results)
    assert [row.training for row in read_rows(tmp_path)] == [row.training for row in rows_of(cells, results)]
    page = write_study_report(tmp_path).read_text(encoding="utf-8")
    pictures = list((tmp_path / "figures").glob("*.svg"))
    assert page.count("<svg") == len(pictures)
    for picture in pictures:
        root = ElementTree.fromstring(picture.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"  # else no viewer knows it for a picture
        (style,) = root.findall("{http://www.w3.org/2000/svg}style")
        assert "svg .dot {" in (style.text or "")
        assert "--s1: #" in (style.text or "")
    assert "accuracy lost to 4 bits, points" in (tmp_path / "levels.md").read_text(encoding="utf-8")
    with (tmp_path / "levels.csv").open(encoding="utf-8", newline="") as file:
        places = list(csv.DictReader(file))
    assert {place["level"] for place in places if place["figure"] == "accuracy at 4 bits"} == {"adam", "muon"}
    with (tmp_path / "training.csv").open(encoding="utf-8", newline="") as file:
        assert {line["optimizer"] for line in csv.DictReader(file)} == {"adam", "muon"}


@pytest.mark.parametrize("name", ["cells.csv", "stages.csv"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.rstrip("\n") + ",more\n", "a line is longer or shorter"),
        (lambda text: text[: text.rindex(",")], "a line is longer or shorter"),
        (
            lambda text: text.replace("folder,seconds", "a,b").replace(",rows,", ",lines,"),
            "there is no column",
        ),
        (lambda text: text.replace(",100,", ",many,").replace(",1.5", ",long"), "is damaged .*(many|long)"),
        (lambda text: text.replace(",", '"', 1), "is damaged"),
    ],
    ids=["columns", "cut", "header", "number", "quotes"],
)
def test_a_damaged_table_is_named(
    study: StudyFile, results: dict[str, dict[str, Any]], tmp_path: Path, name: str, damage: Any, words: str
) -> None:
    for cell in results.values():
        cell["stages"] = {"data data-1": 1.5}
    write_results(tmp_path, cells_of(study), results)
    path = tmp_path / name
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(InputError, match=f"{name} .*{words}"):
        write_study_report(tmp_path)


def test_cells_of_other_factors_than_the_study_s_are_not_shown_as_its_own(
    study: StudyFile, results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    write_results(tmp_path, cells_of(study), results)
    written(tmp_path, factors=STUDY["factors"], compare=STUDY["compare"])
    with pytest.raises(InputError, match=r"have the factors .*task, its study\.yaml names"):
        write_study_report(tmp_path)
