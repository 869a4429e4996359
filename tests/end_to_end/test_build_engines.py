"""The host's road for engines that the demo does not take: small builds, from a recipe to what a board would keep."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright.manifest import Manifest
from edgewright_builder.artifact.artifact import open_artifact
from edgewright_builder.local_engine.engine import local_engine
from tests.support.tiny_build import command, edgewright, environment, write_inputs

pytestmark = pytest.mark.slow  # each is a build, or the beginning of one
MODELS = {"teacher", "student", "finetuned", "quantized", "recovered", "exported"}


def engine_recipe(folder: Path, engine: str, hidden_size: int = 64) -> Path:
    """The tiny build's recipe for an engine, with one trial."""
    path = write_inputs(folder, hidden_size=hidden_size)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe["serving"] = {"context_tokens": 256, "engine": engine}
    recipe["search"] |= {"trials": 1}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def build(recipe: Path, run: Path, device: str) -> Manifest:
    words = command(recipe, run)
    words[words.index("this-host")] = device
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return open_artifact(run / "artifact").manifest


def rungs(run: Path) -> dict[str, Any]:
    entries = json.loads((run / "ladder/ladder.json").read_text(encoding="utf-8"))
    return {entry["model"]: entry for entry in entries}


@pytest.mark.timeout(900)
def test_a_recipe_for_llama_cpp_becomes_a_release_that_it_serves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    manifest = build(engine_recipe(tmp_path, "llama.cpp"), run, "this-host")
    assert (manifest.engine.kind, manifest.model.group_size) == ("llama.cpp", 32)
    assert {file.path for file in manifest.files if file.path.startswith("engine/")} == {"engine/model.gguf"}
    assert {row.model for row in manifest.accuracy} == MODELS
    golden = manifest.golden
    assert golden is not None
    with local_engine(run / "artifact", manifest) as engine:
        assert engine.greedy(golden.prompt, len(golden.tokens)).tokens == golden.tokens


@pytest.mark.timeout(900)
def test_a_recipe_for_edge_llm_becomes_a_checkpoint_that_transformers_evaluated(tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = engine_recipe(tmp_path, "tensorrt-edge-llm", hidden_size=128)
    manifest = build(recipe, run, "jetson-orin-nano-8gb")
    assert (manifest.engine.kind, manifest.model.group_size) == ("tensorrt-edge-llm", 128)
    paths = {file.path for file in manifest.files}
    assert {"engine/config.json", "engine/model.safetensors", "engine/tokenizer.json"} <= paths
    assert {row.model for row in manifest.accuracy} == MODELS
    assert manifest.golden is not None
    assert rungs(run)["exported"]["to_teacher"]["mean"] == pytest.approx(
        rungs(run)["recovered"]["to_teacher"]["mean"], rel=0.02
    )  # embedding and norms went from float32 to float16


@pytest.mark.timeout(300)
def test_a_model_that_edge_llm_s_groups_do_not_divide_is_refused_before_the_build(tmp_path: Path) -> None:
    words = command(engine_recipe(tmp_path, "tensorrt-edge-llm"), tmp_path / "run")
    words[words.index("this-host")] = "jetson-orin-nano-8gb"
    refused = edgewright(*words[3:])
    assert refused.returncode == 2
    assert "takes groups of 128" in refused.stderr
    assert not (tmp_path / "run").exists()
