"""The studies that ship: their files can be run, and what is committed of their cells can be reported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgewright_builder.study.cells import cells_of
from edgewright_builder.study.report import write_study_report
from edgewright_builder.study.results import read_rows
from edgewright_builder.study.study_file import load_study

ROOT = Path(__file__).parents[3]
MEASURED = sorted((ROOT / "benchmarks" / "studies").glob("*/study.yaml"))
FILES = [ROOT / "examples" / "muon-or-adam.yaml", *MEASURED]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_cell_of_a_shipped_study_is_a_recipe(file: Path) -> None:
    study = load_study(file)
    assert len(cells_of(study)) >= 6
    assert study.compare is not None


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.parent.name)
def test_the_committed_cells_are_the_studys_and_their_statistics_can_be_redone(
    file: Path, tmp_path: Path
) -> None:
    names = {cell.name for cell in cells_of(load_study(file))}
    rows = read_rows(file.parent)
    assert rows
    assert {row.cell for row in rows} <= names
    for name in ("study.yaml", "cells.csv", "stages.csv"):
        shutil.copy(file.parent / name, tmp_path)
    assert write_study_report(tmp_path).is_file()
