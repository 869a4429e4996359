"""A new task for a board that has a model: recipe to adapter, push, switch in the running engine, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from edgewright.trust.keys import load_public_key
from edgewright_builder.artifact.artifact import verify_artifact
from tests.support.tiny_build import Built, edgewright

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODULES = ["q_proj", "o_proj"]
READY = "serving on "


@pytest.fixture(scope="module")
def adapter_run(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of an adapter on the tiny build."""
    folder = built.recipe.parent
    recipe = {
        "name": "tiny-task", "task": "arc_easy", "base": str(built.run),
        "adapter": {"rank": 2, "modules": MODULES, "epochs": 2, "learning_rate": 0.02},
        "data": {"file": str(folder / "data.jsonl")}, "finetune": {"batch_tokens": 256},
        "evaluate": {"tasks": [str(folder / "quiz.jsonl")]},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("adapter") / "adapter.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    done = edgewright(*build_words(path, built))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of its base" in done.stdout
    assert "base" in done.stdout.splitlines()[-1]
    return path.parent / "run"


def build_words(recipe: Path, built: Built, *more: str) -> list[str]:
    words = ["build", str(recipe), "--device", "this-host", "-o", str(recipe.parent / "run")]
    return [*words, "--credentials", str(built.recipe.parent / "credentials"), *more]


@pytest.fixture
def agent(built: Built, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """(address, pid) of a real agent with mutual TLS."""
    keys = built.recipe.parent / "credentials"
    words = [
        sys.executable, "-m", "edgewright_agent", "serve", "--profile", "this-host", "--store", str(tmp_path / "store"),
        "--listen", "127.0.0.1:0", "--budget", "1GiB", "--probation", "0", "--trust", str(keys / "release.pub"),
        "--tls-cert", str(keys / "agent.pem"), "--tls-key", str(keys / "agent.key"), "--tls-ca", str(keys / "ca.pem"),
    ]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ)
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix(READY), process.pid
        process.terminate()


def engine_pids(agent_pid: int) -> list[int]:
    children = psutil.Process(agent_pid).children(recursive=True)
    return [child.pid for child in children if "edgewright_agent.engine_worker" in " ".join(child.cmdline())]


def test_the_manifest_names_base_rank_modules_and_accuracy(built: Built, adapter_run: Path) -> None:
    key = load_public_key(built.recipe.parent / "credentials" / "release.pub")
    manifest = verify_artifact(adapter_run / "artifact", key).manifest
    base = verify_artifact(built.run / "artifact", key)
    assert manifest.adapter is not None
    assert (manifest.kind, manifest.base) == ("adapter", base.digest)
    assert (manifest.adapter.rank, list(manifest.adapter.modules)) == (2, MODULES)
    assert {row.model for row in manifest.accuracy} == {"base", "adapter"}
    assert [file.path for file in manifest.files] == [manifest.adapter.path]
    assert manifest.memory.predicted_peak_bytes > base.manifest.memory.predicted_peak_bytes
    assert str(built.run.parent) not in (adapter_run / "artifact" / "manifest.json").read_text()


def test_training_lowered_the_loss_and_a_second_build_runs_nothing(built: Built, adapter_run: Path) -> None:
    summary = json.loads((adapter_run / "finetune" / "stage.json").read_text(encoding="utf-8"))["summary"]
    assert summary["validation_loss_after"] < summary["validation_loss_before"]
    again = edgewright(*build_words(adapter_run.parent / "adapter.yaml", built, "--resume"))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 5


def test_an_adapter_is_pushed_switched_and_rolled_back_without_a_new_engine(
    built: Built, adapter_run: Path, agent: tuple[str, int]
) -> None:
    address, pid = agent
    credentials = ("--credentials", str(built.recipe.parent / "credentials"))
    early = edgewright("push", str(adapter_run / "artifact"), address, *credentials)
    assert early.returncode == 1
    assert "Push it first" in early.stderr

    assert edgewright("push", str(built.run / "artifact"), address, *credentials).returncode == 0
    engines = engine_pids(pid)
    said = edgewright("generate", address, "sun?", "--max-tokens", "12", *credentials).stdout
    pushed = edgewright("push", str(adapter_run / "artifact"), address, *credentials)
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    assert "adapter: " in pushed.stdout
    assert engine_pids(pid) == engines
    assert edgewright("generate", address, "sun?", "--max-tokens", "12", *credentials).stdout != said

    assert edgewright("rollback", address, *credentials).returncode == 0
    assert engine_pids(pid) == engines
    assert edgewright("generate", address, "sun?", "--max-tokens", "12", *credentials).stdout == said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"adapter": {"rank": 16}}, "up to rank 8"),
        ({"base": "/nowhere"}, "no finished run"),
        ({"adapter": {"rang": 2}}, "did you mean `rank`"),
        ({"data": {}}, "`data.file`"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_written(
    built: Built, adapter_run: Path, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    recipe = yaml.safe_load((adapter_run.parent / "adapter.yaml").read_text(encoding="utf-8"))
    (tmp_path / "adapter.yaml").write_text(yaml.safe_dump(recipe | change), encoding="utf-8")
    done = edgewright(*build_words(tmp_path / "adapter.yaml", built))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "run").exists()
