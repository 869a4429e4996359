"""The stage `data` is done again where what its rows were made from has changed."""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import run_data
from tests.builder.data.test_generation import ScriptedTeacher
from tests.support.teacher_server import Reply, TeacherServer, said, teacher_server

PIQA = (resources.files("edgewright_builder.data") / "presets" / "piqa.yaml").read_text(encoding="utf-8")


def written(folder: Path, server: TeacherServer) -> FinishedStage:
    """Runs the stage with the preset `mine.yaml`, as a build with --resume does."""
    values = {
        "name": "x", "task": "t", "student": {"model": "m"}, "data": {"pairs": 4, "preset": str(folder / "mine.yaml")},
        "teachers": {
            "data": {"model": "t", "endpoint": server.url, "batch_size": 4}, "knowledge": {"model": "m"}
        },
    }  # fmt: skip
    run = Run(folder / "run", Reporter(Console(file=io.StringIO())))
    return run_data(Distillation(Recipe.model_validate(values), run, "m", "m"))


def answer(body: dict[str, Any]) -> Reply:
    prompt = body["messages"][-1]["content"]
    return said("4" if "Score from 1 to 5" in prompt else ScriptedTeacher()._text(prompt, body["seed"]))


def test_a_preset_of_ones_own_that_was_changed_is_written_for_anew(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(PIQA, encoding="utf-8")
    with teacher_server(answer) as server:
        first = written(tmp_path, server)
        asked = len(server.bodies)
        assert written(tmp_path, server).output_digest == first.output_digest
        assert len(server.bodies) == asked
        preset.write_text(PIQA.replace("baking", "glass blowing"), encoding="utf-8")
        written(tmp_path, server)
    assert any("glass blowing" in body["messages"][-1]["content"] for body in server.bodies[asked:])
