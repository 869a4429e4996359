"""What decides a stage, and so has it run again, and what does not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from edgewright.digests import digest_of
from edgewright.errors import InputError
from edgewright_builder.recipe.hyperparameters import FixedHyperparameters, TrialSettings
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.export import run_export
from edgewright_builder.stages.quantize import run_quantize
from edgewright_builder.stages.recover import run_recover
from edgewright_profiles import load_profile
from tests.support.configurations import LLAMA


@pytest.fixture(autouse=True)
def stages_only_say_their_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(_: Run, name: str, inputs: Mapping[str, Any], work: object, **__: object) -> FinishedStage:
        return FinishedStage(name, Path(), digest_of(inputs), 0.0, {})

    monkeypatch.setattr(Run, "stage", stage)


def build_of(folder: Path, **sections: Any) -> Build:
    values = {
        "name": "x", "task": "t", "student": {"model": "m"}, "teachers": {"knowledge": {"model": "m"}},
        "data": {"file": "pairs.jsonl"}, **sections,
    }  # fmt: skip
    recipe = Recipe.model_validate(values)
    run = Run(folder / "run", Reporter(Console(file=io.StringIO())))
    return Build(recipe, load_profile("this-host"), 2**33, run, Ed25519PrivateKey.generate())


def quantize_of(folder: Path, share: float) -> str:
    (folder / "best.json").write_text(json.dumps(asdict(TrialSettings(FixedHyperparameters().values, 32))))
    before = FinishedStage("before", folder, "digest", 0.0, {})
    section = {"general_data": str(folder / "text.txt"), "general_share": share}
    return run_quantize(build_of(folder, quantize=section), before, before, before).output_digest


def recover_of(folder: Path, share: float) -> str:
    before = FinishedStage("before", folder, "digest", 0.0, {})
    section = {"data": str(folder / "text.txt"), "general_share": share}
    return run_recover(build_of(folder, recover=section), before, before, before).output_digest


STAGES = pytest.mark.parametrize("stage", [quantize_of, recover_of])


@STAGES
def test_a_text_of_which_no_share_is_read_may_change_and_be_gone(
    tmp_path: Path, stage: Callable[[Path, float], str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One.\n\nTwo.")
    before = stage(tmp_path, 0)
    text.write_text("One.\n\nThree.")
    assert stage(tmp_path, 0) == before
    text.unlink()
    assert stage(tmp_path, 0) == before


@STAGES
def test_a_text_of_which_a_share_is_read_counts_by_its_content(
    tmp_path: Path, stage: Callable[[Path, float], str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One.\n\nTwo.")
    before = stage(tmp_path, 0.5)
    text.write_text("One.\n\nThree.")
    assert stage(tmp_path, 0.5) != before
    text.unlink()
    with pytest.raises(InputError, match=r"text\.txt can't be read as text"):
        stage(tmp_path, 0.5)


def exported_as(folder: Path, engine: str, name: str) -> str:
    student = folder / "student"
    student.mkdir(exist_ok=True)
    (student / "config.json").write_text(json.dumps(dict(LLAMA)))
    (student / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    sections = {"student": {"model": str(student)}, "serving": {"engine": engine, "context_tokens": 64}}
    quantized = FinishedStage("quantize", folder, "digest", 0.0, {})
    return run_export(build_of(folder, name=name, **sections), quantized).output_digest


@pytest.mark.parametrize(
    ("engine", "stands_in_the_file"), [("llama.cpp", True), ("onnxruntime-genai", False), ("vllm", False)]
)
def test_a_release_of_another_name_is_exported_anew_where_its_files_hold_the_name(
    tmp_path: Path, engine: str, stands_in_the_file: bool
) -> None:
    before = exported_as(tmp_path, engine, "first")
    assert (exported_as(tmp_path, engine, "second") != before) == stands_in_the_file
    assert exported_as(tmp_path, engine, "first") == before
