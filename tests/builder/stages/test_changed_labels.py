"""A build that is gone on with learns what the data says now, also where the teacher was not asked about it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.finetune import run_finetune
from edgewright_builder.stages.finetune_adapter import run_finetune_adapter
from edgewright_builder.stages.search import run_search
from edgewright_builder.stages.student import run_student
from edgewright_builder.stages.teacher import run_teacher
from edgewright_builder.train.samples import Sample, split
from edgewright_profiles import load_profile
from tests.support.tiny_gptq_checkpoint import write_quantized
from tests.support.tiny_models import tiny_model, tiny_tokenizer

PAIRS = 10
Stages = tuple[FinishedStage, FinishedStage]  # `teacher`, and what learns from it


def write_rows(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_of(folder: Path) -> Run:
    return Run(folder / "run", Reporter(Console(file=io.StringIO())))


def adapter_stages(folder: Path, data: Path) -> Stages:
    """An adapter that learns from the data alone, which is what a recipe without a teacher asks for."""
    values = {
        "name": "x", "task": "t", "base": "base", "data": {"file": str(data)},
        "finetune": {"batch_tokens": 128}, "adapter": {"modules": ["q_proj"]},
    }  # fmt: skip
    recipe = AdapterRecipe.model_validate(values)
    job = Distillation(recipe, run_of(folder), str(folder / "gptq"), str(folder / "teacher"))
    finished = run_data(job)
    teacher = run_teacher(job, finished)
    return teacher, run_finetune_adapter(job, recipe, ["q_proj"], finished, teacher)


def model_stages(folder: Path, data: Path) -> Stages:
    """A model whose recipe fixes α = 0."""
    model = str(folder / "teacher")
    values = {
        "name": "x", "task": "t", "student": {"model": model}, "teachers": {"knowledge": {"model": model}},
        "data": {"file": str(data)}, "finetune": {"batch_tokens": 128},
        "hyperparameters": {"alpha": 0.0, "lora_rank": 4}, "serving": {"context_tokens": 64},
    }  # fmt: skip
    recipe, profile = Recipe.model_validate(values), load_profile("this-host")
    build = Build(recipe, profile, 2**30, run_of(folder), Ed25519PrivateKey.generate())
    finished = run_data(build.distillation)
    student = run_student(build, finished)
    teacher = run_teacher(build.distillation, finished)
    search = run_search(build, finished, student, teacher)
    return teacher, run_finetune(build, finished, student, teacher, search)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with `teacher` and `gptq`, another model in 4 bits."""
    write_quantized(tmp_path)
    tiny_model(2).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    return tmp_path


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stages", [adapter_stages, model_stages])
def test_other_answers_to_learn_train_again_though_the_teacher_says_the_same(
    models: Path, stages: Callable[[Path, Path], Stages]
) -> None:
    data = models / "own.jsonl"
    rows: list[dict[str, Any]] = [{"instruction": f"Is it {i}?", "output": "light."} for i in range(PAIRS)]
    write_rows(data, rows)
    before = stages(models, data)
    learned = split([Sample((1, 2), 0)] * PAIRS, 0.1, 0)[0][0]
    rows[learned] |= {"output": "water."}
    write_rows(data, rows)
    after = stages(models, data)
    assert after[0].output_digest == before[0].output_digest  # T2 was asked about the held-out pairs alone
    assert after[1].output_digest != before[1].output_digest
