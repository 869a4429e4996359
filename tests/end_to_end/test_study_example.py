"""The shipped study, run whole on SmolLM2 cut to twelve layers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.support.tiny_build import edgewright

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_example_compares_muon_with_adam(tmp_path: Path) -> None:
    done = edgewright("study", str(EXAMPLES / "muon-or-adam.yaml"), "-o", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "run" / "cells.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["factor:hyperparameters.optimizer"] for row in rows] == 3 * ["adam"] + 3 * ["muon"]
    assert {row["tuned"] for row in rows} <= {"0.0005", "0.002"}
    assert "accuracy lost to 4 bits" in done.stdout
