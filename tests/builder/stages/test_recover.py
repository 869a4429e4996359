"""The stage `recover` leaves the same record and the same model, wherever it was killed before."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from safetensors.torch import load_file

from edgewright_builder.quantization import frozen_codes
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run import resumable_run as run_module
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages import recover as stage
from edgewright_builder.train import recovery
from edgewright_builder.train.samples import Sample
from edgewright_profiles import load_profile
from tests.support.tiny_gptq_checkpoint import write_quantized
from tests.support.tiny_models import tiny_model, tiny_tokenizer

STEPS = 10  # one save in between, one at the end
SAMPLES = [Sample(tuple((7 * row + 5 * place) % 384 for place in range(24)), 0) for row in range(20)]
TEXTS = stage.Texts(SAMPLES[:10], SAMPLES[10:], validation_fraction=0.2)


class KilledError(Exception):
    """Stands for the kill: nothing of the stage runs after it."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with `teacher` and `gptq`, the same model rounded to 4 bits."""
    write_quantized(tmp_path)
    tiny_model(1).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    return tmp_path


def run_stage(models: Path, run: Path, **recover: Any) -> FinishedStage:
    model = str(models / "teacher")
    recipe = Recipe.model_validate(
        {
            "name": "tiny", "task": "arc_easy", "student": {"model": model},
            "teachers": {"data": {"endpoint": "http://localhost:1/v1", "model": "m"}, "knowledge": {"model": model}},
            "recover": {"steps": STEPS, "batch_tokens": 64, "learning_rate": 1e-2, **recover},
        }
    )  # fmt: skip
    reporter = Reporter(Console(file=io.StringIO()))
    build = Build(recipe, load_profile("this-host"), 2**30, Run(run, reporter), Ed25519PrivateKey.generate())

    def work(folder: Path) -> dict[str, Any]:
        return stage.recover(models / "teacher", models / "gptq", TEXTS, build, folder)

    return build.run.stage("recover", {"settings": recover}, work, products=("model",), resumable=True)


def killed_at(owner: object, name: str, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the process die as the function `name` of `owner` is called for the `call`-th time."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 10_000))

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise KilledError
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, dying)


KILLS = {
    "before the first save": (recovery, "write_durably", 1),
    "after the last step": (stage, "_judge", 2),
    "before the model is written": (frozen_codes, "write_checkpoint", 1),
    "while the model is written": (Path, "write_bytes", 2),
    "while the record is written": (run_module, "write_json", 1),
}


@pytest.mark.parametrize("train", ["scales", "rounding"])
@pytest.mark.parametrize("kill", KILLS)
def test_a_stage_killed_anywhere_goes_on_to_the_same_record(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: str, train: str
) -> None:
    monkeypatch.setattr(recovery, "STEPS_PER_SAVE_WITH_OFFSETS", 8)
    undisturbed = run_stage(models, tmp_path / "undisturbed", train=train)
    with monkeypatch.context() as patch:
        killed_at(*KILLS[kill], patch)
        with pytest.raises(KilledError):
            run_stage(models, tmp_path / "run", train=train)
    assert not (tmp_path / "run" / "recover" / "stage.json").exists()
    resumed = run_stage(models, tmp_path / "run", train=train)
    assert resumed.summary == undisturbed.summary
    assert resumed.output_digest == undisturbed.output_digest
    assert resumed.summary["steps"] == STEPS
    assert resumed.summary["tokens"] > 0


def test_minutes_that_end_before_the_first_save_end_the_stage_cleanly(models: Path, tmp_path: Path) -> None:
    done = run_stage(models, tmp_path / "run", minutes_max=1e-9)
    record = json.loads((done.folder / "stage.json").read_text(encoding="utf-8"))
    assert (done.folder / "model" / "config.json").is_file()
    assert not (done.folder / "state.pt").exists()
    assert record["summary"]["steps"] == 1  # what was taken, not what was asked for
    assert 0 < record["summary"]["tokens"] <= 64


@pytest.mark.parametrize("train", ["scales", "scales+norms", "rounding"])
def test_a_training_that_makes_it_worse_leaves_what_gptq_left(
    models: Path, tmp_path: Path, train: str
) -> None:
    done = run_stage(models, tmp_path / "run", train=train, learning_rate=0.099, steps=40)
    assert done.summary["train"] == "kept what came before"
    kept, left = (
        load_file(folder / "model.safetensors") for folder in (done.folder / "model", models / "gptq")
    )
    assert all(torch.equal(kept[name], tensor) for name, tensor in left.items())


def test_learned_rounding_says_how_many_codes_moved(models: Path, tmp_path: Path) -> None:
    done = run_stage(models, tmp_path / "run", train="rounding", learning_rate=2e-3, steps=24)
    assert done.summary["train"] == "rounding"
    assert 0 < done.summary["codes_changed_fraction"] < 1
