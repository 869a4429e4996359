"""Search, fine-tuning and recovery see one interface, whichever source T2's knowledge has."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgewright.errors import InputError, OutsideError
from edgewright_builder.models.folder import load_model
from edgewright_builder.pipeline.preflight import check_knowledge
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.teacher import run_teacher, training_of
from edgewright_builder.train.epoch import validation_divergence
from tests.support.knowledge_server import KnowledgeModel
from tests.support.teacher_server import teacher_server
from tests.support.two_vocabularies import (
    PAIRS,
    TwoModels,
    student_tokenizer,
    teacher_tokenizer,
    write_model,
    write_models,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TwoModels:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "sibling", student_tokenizer(), 9, 432)
    return write_models(folder)


def job(
    models: TwoModels, folder: Path, knowledge: dict[str, Any], file: str = "data.jsonl", **distillation: Any
) -> Distillation:
    values = {
        "name": "x", "task": "arc_easy", "student": {"model": str(models.student)},
        "teachers": {"knowledge": knowledge}, "data": {"file": file},
        "distillation": {"minimum_aligned": 0.1} | distillation,  # these two share little on purpose
    }  # fmt: skip
    recipe = Recipe.model_validate(values)
    run = Run(folder / "run", Reporter(Console(file=io.StringIO())))
    return Distillation(recipe, run, str(models.student), knowledge["model"])


def data(folder: Path) -> FinishedStage:
    (folder / "data").mkdir()
    lines = "".join(json.dumps(pair) + "\n" for pair in PAIRS)
    (folder / "data" / "data.jsonl").write_text(lines, encoding="utf-8")
    return FinishedStage("data", folder / "data", "digest", 0.0, {"pairs": len(PAIRS)})


@contextmanager
def knowledge_of(source: str, models: TwoModels) -> Iterator[dict[str, Any]]:
    sibling = models.student.parent / "sibling"
    if source == "shared":
        yield {"model": str(sibling)}
    elif source == "aligned":
        yield {"model": str(models.teacher)}
    else:
        folder = sibling if source == "served" else models.teacher
        tokenizer = student_tokenizer() if source == "served" else teacher_tokenizer()
        with teacher_server(KnowledgeModel(load_model(folder), tokenizer)) as server:
            yield {"model": "big", "endpoint": server.url, "top_k": 8, "tokenizer": str(folder)}


@pytest.mark.parametrize("source", ["shared", "aligned", "served", "served, of another vocabulary"])
def test_every_source_gives_a_training_and_is_kept_when_it_is_done(
    models: TwoModels, tmp_path: Path, source: str
) -> None:
    finished = data(tmp_path)
    with knowledge_of(source, models) as knowledge:
        asked = job(models, tmp_path, knowledge)
        check_knowledge(asked)
        stage = run_teacher(asked, finished)
    training = training_of(asked, finished, stage)  # no server is needed any more
    divergence = validation_divergence(load_model(models.student), training.data, 256)
    assert divergence.mean > 0
    assert divergence.tokens > 0
    assert run_teacher(asked, finished).output_digest == stage.output_digest


def test_the_build_says_what_aligns_before_it_asks_the_teacher(models: TwoModels, tmp_path: Path) -> None:
    asked = job(models, tmp_path, {"model": str(models.teacher)})
    stage = run_teacher(asked, data(tmp_path))
    console = asked.run.reporter.console.file
    assert isinstance(console, io.StringIO)
    said = console.getvalue()
    assert f"both cut {stage.summary['equal_share']:.1%} of the data's tokens alike" in said
    assert "are held against T2, the others are learned by cross-entropy alone" in said
    assert said.index("alignment:") < said.index("samples")


def test_vocabularies_below_the_floor_are_refused_before_anything_is_written(
    models: TwoModels, tmp_path: Path
) -> None:
    asked = job(models, tmp_path, {"model": str(models.teacher)}, minimum_aligned=1.0)
    with pytest.raises(InputError, match=r"cut [\d.]+% of the tokens alike, expected are at least 100%"):
        check_knowledge(asked)
    assert not (tmp_path / "run").exists()


def test_a_served_teacher_can_not_be_compared_by_uld(models: TwoModels, tmp_path: Path) -> None:
    knowledge = {"model": "big", "endpoint": "http://127.0.0.1:9/v1", "tokenizer": str(models.teacher)}
    with pytest.raises(InputError, match=r"`distillation.alignment: uld` needs every probability"):
        check_knowledge(job(models, tmp_path, knowledge, alignment="uld"))


def test_a_server_that_has_answered_is_not_asked_again_and_another_one_is(
    models: TwoModels, tmp_path: Path
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    with knowledge_of("served", models) as knowledge:
        asked = job(models, tmp_path, knowledge, str(own))
        run_teacher(asked, run_data(asked))
    check_knowledge(job(models, tmp_path, knowledge | {"api_key_env": "NO_SUCH_KEY"}, str(own)))
    for change in ({"model": "bigger"}, {"top_k": 4}):
        with pytest.raises(OutsideError):  # the server is gone
            check_knowledge(job(models, tmp_path, knowledge | change, str(own)))
    with pytest.raises(InputError, match=r"`teachers\.knowledge\.api_key_env` is NO_SUCH_KEY"):
        check_knowledge(
            job(models, tmp_path, knowledge | {"api_key_env": "NO_SUCH_KEY", "top_k": 4}, str(own))
        )
    own.write_text(own.read_text(encoding="utf-8").replace("rose", "fell"), encoding="utf-8")
    with pytest.raises(OutsideError):
        check_knowledge(job(models, tmp_path, knowledge, str(own)))
