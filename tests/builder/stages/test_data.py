"""The stage `data` is done again where what its rows were made from has changed, and only then."""

from __future__ import annotations

import io
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgewright.digests import digest_of
from edgewright.errors import InputError
from edgewright_builder.pipeline.preflight import check_data
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import data_inputs, run_data
from tests.builder.data.test_generation import ScriptedTeacher
from tests.support.teacher_server import Reply, TeacherServer, said, teacher_server
from tests.support.tiny_models import tiny_model, tiny_tokenizer

PIQA = (resources.files("edgewright_builder.data") / "presets" / "piqa.yaml").read_text(encoding="utf-8")


def job_of(folder: Path, teacher: dict[str, Any], *, shared: Path | None = None, **data: Any) -> Distillation:
    """A build as `--resume` begins it, its run in `folder`; with `shared` a study's cell."""
    values = {
        "name": "x", "task": "piqa", "student": {"model": "m"}, "data": {"pairs": 4, **data},
        "teachers": {"data": {"batch_size": 4, **teacher}, "knowledge": {"model": "m"}},
    }  # fmt: skip
    run = Run(folder / "run", Reporter(Console(file=io.StringIO())), shared)
    return Distillation(Recipe.model_validate(values), run, "m", "m")


def written(folder: Path, server: TeacherServer) -> FinishedStage:
    """Runs the stage with the preset `mine.yaml`, as a build with --resume does."""
    preset = str(folder / "mine.yaml")
    return run_data(job_of(folder, {"model": "t", "endpoint": server.url}, preset=preset))


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


def test_prompts_of_ones_own_count_by_their_contents_and_not_by_their_place(tmp_path: Path) -> None:
    shipped = resources.files("edgewright_builder.data") / "prompts"
    for name in ("here", "there"):
        shutil.copytree(str(shipped), tmp_path / name / "prompts")
    job = {
        name: job_of(tmp_path, {"model": "t"}, prompts=tmp_path / name / "prompts")
        for name in ("here", "there")
    }
    prompt = next((tmp_path / "there" / "prompts").glob("*.txt"))
    same = [data_inputs(job[name]) for name in ("here", "there")]
    prompt.write_text(prompt.read_text() + "\n")

    assert digest_of(same[0]) == digest_of(same[1])
    assert digest_of(data_inputs(job["there"])) != digest_of(same[0])


class WrittenBy:
    """Stands in for the local T1, whose random weights write no readable pair: keeps the digests of those asked."""

    def __init__(self) -> None:
        self.digests: list[str] = []

    def __call__(self, model: Any, tokenizer: Any, identity: str) -> ScriptedTeacher:
        self.digests.append(identity)
        return ScriptedTeacher()


@pytest.fixture
def written_by(monkeypatch: pytest.MonkeyPatch) -> WrittenBy:
    teachers = WrittenBy()
    monkeypatch.setattr("edgewright_builder.data.local_teacher.LocalClient", teachers)
    return teachers


def save_teacher(folder: Path, seed: int) -> dict[str, Any]:
    """Writes a T1 with the weights of this seed; returns its keys of the recipe."""
    tiny_model(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return {"model": str(folder)}


def test_a_local_teacher_changed_in_place_writes_its_data_anew(tmp_path: Path, written_by: WrittenBy) -> None:
    teacher = save_teacher(tmp_path / "t1", 0)
    run_data(job_of(tmp_path, teacher))
    run_data(job_of(tmp_path, teacher))
    assert len(written_by.digests) == 1
    save_teacher(tmp_path / "t1", 1)
    run_data(job_of(tmp_path, teacher))
    assert len(set(written_by.digests)) == 2


@pytest.mark.parametrize("stages", [None, "stages"], ids=["a build", "a study's cell"])
def test_a_local_teacher_moved_or_gone_since_keeps_what_it_wrote(
    stages: str | None, tmp_path: Path, written_by: WrittenBy
) -> None:
    shared = None if stages is None else tmp_path / stages
    save_teacher(tmp_path / "t1", 0)
    run_data(job_of(tmp_path, {"model": str(tmp_path / "t1")}, shared=shared))
    (tmp_path / "t1").rename(tmp_path / "moved")
    run_data(job_of(tmp_path, {"model": str(tmp_path / "moved")}, shared=shared))
    run_data(job_of(tmp_path, {"model": str(tmp_path / "t1")}, shared=shared))
    check_data(job_of(tmp_path, {"model": str(tmp_path / "t1")}, shared=shared))
    assert len(written_by.digests) == 1


def test_data_is_not_cleared_for_a_teacher_that_is_gone(tmp_path: Path, written_by: WrittenBy) -> None:
    teacher = save_teacher(tmp_path / "t1", 0)
    run_data(job_of(tmp_path, teacher))
    shutil.rmtree(tmp_path / "t1")
    with pytest.raises(InputError, match="No model at"):
        check_data(job_of(tmp_path, teacher, temperature=0.9))
    assert (tmp_path / "run" / "data" / "data.jsonl").is_file()
