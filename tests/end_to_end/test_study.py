"""A whole study of four tiny cells, through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.support.tiny_build import edgewright


@pytest.fixture(scope="module")
def study(recipe: Path) -> Path:
    """A study of the tiny recipe: recovery on and off, two seeds."""
    base = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    del base["search"]
    base["hyperparameters"] = {"lora_rank": 8}
    base["recover"] = {"steps": 4}
    base_path = recipe.parent / "study-recipe.yaml"
    base_path.write_text(yaml.safe_dump(base), encoding="utf-8")
    document = {
        "name": "recovery", "recipe": base_path.name, "budget": "1GiB", "interval": 0.5,
        "factors": {"recover.train": ["off", "scales"], "finetune.seed": [1, 2]},
        "compare": {"factor": "recover.train", "levels": ["off", "scales"]},
    }  # fmt: skip
    path = recipe.parent / "study.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "run"
    done = edgewright("study", str(study), "-o", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recovery: 4 cells (2 recover.train × 2 finetune.seed), 0 of them done" in done.stdout
    assert "Report: " in done.stdout
    return folder


@pytest.mark.timeout(600)
def test_a_study_runs_every_cell_and_says_what_the_pairs_show(finished: Path) -> None:
    with (finished / "cells.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["factor:recover.train"], row["factor:finetune.seed"]) for row in rows} == {
        (train, seed) for train in ("off", "scales") for seed in ("1", "2")
    }
    assert all(float(row["kl_pairs"]) > 0 and 0 <= float(row["accuracy_4"]) <= 1 for row in rows)
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "accuracy lost to 4 bits" in page
    assert "KL(16 bits ‖ 4 bits), held-out pairs" in (finished / "contrasts.md").read_text(encoding="utf-8")
    assert (finished / "figures" / "kl_pairs.svg").read_text(encoding="utf-8").startswith("<svg xmlns")


@pytest.mark.timeout(600)
def test_cells_share_every_stage_they_have_in_common(finished: Path) -> None:
    stages = sorted(path.name.split("-")[0] for path in (finished / "stages").iterdir() if path.is_dir())
    counts = {name: stages.count(name) for name in set(stages)}
    assert counts == {
        "data": 1, "student": 1, "teacher": 1, "search": 1, "finetune": 2, "quantize": 2, "recover": 3,
        "divergence": 4, "outliers": 2, "evaluate": 6,
    }  # fmt: skip


@pytest.mark.timeout(600)
def test_a_finished_study_runs_nothing_again(finished: Path, study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "stages").rglob("stage.json")}
    refused = edgewright("study", str(study), "-o", str(finished))
    assert refused.returncode == 1
    assert "is not empty: add --resume" in refused.stderr
    again = edgewright("study", str(study), "-o", str(finished), "--resume", "--workers", "2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 of them done" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (finished / "stages").rglob("stage.json")} == before


def test_a_study_without_time_for_a_cell_ends_well_and_says_so(study: Path, tmp_path: Path) -> None:
    done = edgewright("study", str(study), "-o", str(tmp_path / "run"), "--minutes", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 4 cells are done; the same command with --resume goes on." in done.stdout
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.timeout(600)
def test_another_study_does_not_get_the_folder(finished: Path, study: Path) -> None:
    document = yaml.safe_load(study.read_text(encoding="utf-8")) | {"name": "other"}
    other = study.parent / "other.yaml"
    other.write_text(yaml.safe_dump(document), encoding="utf-8")
    refused = edgewright("study", str(other), "-o", str(finished), "--resume")
    assert refused.returncode == 2
    assert "`name: recovery`, and this one has `name: other`" in refused.stderr


def test_a_report_without_a_study_is_refused(tmp_path: Path) -> None:
    refused = edgewright("study", "report", str(tmp_path))
    assert refused.returncode == 2
    assert "holds no study" in refused.stderr


@pytest.mark.timeout(600)
def test_each_results_file_holds_what_its_stages_took(finished: Path) -> None:
    for path in (finished / "cells").iterdir():
        assert json.loads(path.read_text(encoding="utf-8"))["stages"]
