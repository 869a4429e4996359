"""The stage `student` prunes by what the samples show, so it is done again where they are cut elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.student import run_student
from edgewright_profiles import load_profile
from tests.support.tiny_build import write_model

TEXT = "Water and light make the plants grow, and so do stones and rivers and the wind over the leaves."


def influence(folder: Path, sequence_tokens: int) -> list[float]:
    """Runs the stage as a build with --resume does; returns what it knows of each layer."""
    values = {
        "name": "x", "task": "t", "student": {"model": str(folder / "model"), "depth": 3},
        "teachers": {"knowledge": {"model": str(folder / "model")}},
        "data": {"file": str(folder / "pairs.jsonl")}, "serving": {"context_tokens": 256},
        "finetune": {"sequence_tokens": sequence_tokens},
    }  # fmt: skip
    run = Run(folder / "run", Reporter(Console(file=io.StringIO())))
    recipe = Recipe.model_validate(values)
    build = Build(recipe, load_profile("this-host"), 2**30, run, Ed25519PrivateKey.generate())
    student = run_student(build, run_data(build.distillation))
    values_by_layer: list[float] = json.loads((student.folder / "influence.json").read_text())["influence"]
    return values_by_layer


def test_a_pruned_student_is_pruned_anew_where_the_samples_are_cut_elsewhere(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    rows = [{"instruction": f"Why {number}?", "input": "", "output": TEXT} for number in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    long = influence(tmp_path, 256)
    assert influence(tmp_path, 64) != long
    assert influence(tmp_path, 256) == long
