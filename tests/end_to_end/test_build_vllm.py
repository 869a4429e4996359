"""The host's road for vLLM on a tiny model: the GPTQ checkpoint is what ships, and what is evaluated."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from edgewright_builder.artifact.artifact import open_artifact
from edgewright_builder.local_engine.engine import local_engine
from tests.support.engine_releases import require_vllm
from tests.support.tiny_build import command, edgewright, environment, write_inputs


def vllm_recipe(folder: Path) -> Path:
    """The tiny build's recipe, for vLLM and with one trial."""
    path = write_inputs(folder)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe["serving"] = {"context_tokens": 256, "engine": "vllm", "concurrency": 2}
    recipe["search"] |= {"trials": 1}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.mark.timeout(300)
def test_without_a_vllm_the_build_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_VLLM", "/nowhere/vllm")
    words = command(vllm_recipe(tmp_path), tmp_path / "run")
    words[words.index("1GiB")] = "4GiB"  # vLLM itself takes more than one
    refused = edgewright(*words[3:])
    assert refused.returncode == 1
    assert "can't run on this host: /nowhere/vllm is no executable" in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.vllm
@pytest.mark.timeout(1800)
def test_a_recipe_becomes_a_release_that_vllm_serves(tmp_path: Path) -> None:
    require_vllm()
    words = command(vllm_recipe(tmp_path), tmp_path / "run")
    words[words.index("1GiB")] = "4GiB"
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    artifact = open_artifact(tmp_path / "run" / "artifact")
    manifest = artifact.manifest
    assert (manifest.engine.kind, manifest.limits.concurrency) == ("vllm", 2)
    assert manifest.model.embedding_bits == 16
    assert {"engine/config.json", "engine/model.safetensors"} <= {file.path for file in manifest.files}
    assert {row.model for row in manifest.accuracy} == {
        "teacher", "student", "finetuned", "quantized", "recovered", "exported",
    }  # fmt: skip
    assert manifest.golden is not None
    with local_engine(artifact.folder, manifest) as engine:
        assert (
            engine.greedy(manifest.golden.prompt, len(manifest.golden.tokens)).tokens
            == manifest.golden.tokens
        )
