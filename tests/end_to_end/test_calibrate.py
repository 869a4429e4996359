"""A board teaches the host what its engine takes: real agent, real engine, and predictions that say so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tiny_build import Built, command, edgewright, environment

pytestmark = pytest.mark.timeout(600)

BOARD = ("--device", "this-host")
READY = "serving on "
CONTEXT = 256  # of the tiny build


@pytest.fixture
def keys(built: Built) -> Path:
    return built.recipe.parent / "credentials"


@pytest.fixture
def address(keys: Path, tmp_path: Path) -> Iterator[str]:
    """Of a real agent with mutual TLS."""
    words = [
        sys.executable, "-m", "edgewright_agent", "serve", "--profile", "this-host", "--store", str(tmp_path / "store"),
        "--listen", "127.0.0.1:0", "--budget", "1GiB", "--probation", "0", "--trust", str(keys / "release.pub"),
        "--tls-cert", str(keys / "agent.pem"), "--tls-key", str(keys / "agent.key"), "--tls-ca", str(keys / "ca.pem"),
    ]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ)
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix(READY)
        process.terminate()


def check(model: Path) -> Any:
    """The whole model, as `check` predicts it."""
    asked = ["--engine", "onnxruntime-genai", "--context", str(CONTEXT), "--budget", "1GiB", "--json"]
    done = edgewright("check", str(model), *BOARD, *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["plan"]


def test_what_a_board_has_measured_moves_later_predictions_for_it(
    built: Built, keys: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path / "data"))
    model, credentials = built.recipe.parent / "model", ("--credentials", str(keys))
    pushed = edgewright("push", str(built.run / "artifact"), address, *credentials)
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr

    before = check(model)
    done = edgewright("calibrate", address, "--json", *credentials)
    assert done.returncode == 0, done.stdout + done.stderr
    learned, after = json.loads(done.stdout), check(model)

    assert "this board" not in before["calibrated_on"]
    assert after["calibrated_on"].startswith("calibrated on this board, 1 measurement of onnxruntime-genai")
    off_bytes = learned["measured_peak_bytes"] - learned["predicted_peak_bytes"]
    assert off_bytes != 0
    assert after["predicted_peak_bytes"] - before["predicted_peak_bytes"] == off_bytes
    asked = ["--engine", "onnxruntime-genai", "--budget", "1GiB", "--min-context", str(CONTEXT)]
    told = edgewright("plan", str(model), *BOARD, *asked)
    assert "calibrated on this board, 1 measurement" in told.stdout


def test_the_next_release_is_held_against_what_the_board_has_measured(
    built: Built, keys: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DATA", str(tmp_path / "data"))
    credentials = ("--credentials", str(keys))
    assert edgewright("push", str(built.run / "artifact"), address, *credentials).returncode == 0
    assert edgewright("calibrate", address, *credentials).returncode == 0

    done = build(built, tmp_path, tpot_seconds_max=1e-7)
    assert done.returncode == 2
    assert "`serving.tpot_seconds_max` is 1e-07 s; this plan is predicted to take" in done.stderr

    done = build(built, tmp_path, ttft_seconds_max=60.0, tpot_seconds_max=30.0)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "run" / "artifact" / "manifest.json").read_text())
    limits, performance = manifest["limits"], manifest["performance"]
    assert (limits["ttft_seconds_max"], limits["tpot_seconds_max"]) == (60.0, 30.0)
    assert "tokens/s measured on this board" in performance["predicted_by"]

    pushed = edgewright("push", str(tmp_path / "run" / "artifact"), address, "--json", *credentials)
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    probes = {probe["name"]: probe["detail"] for probe in json.loads(pushed.stdout)["verdict"]["probes"]}
    assert "(limit 60 s)" in probes["latency"]
    assert f"predicted {performance['tokens_per_second']:.1f} or more" in probes["rate"]


def build(built: Built, folder: Path, **serving: float) -> subprocess.CompletedProcess[str]:
    """The build again, of a recipe with more under `serving`: of all its stages only the last has anything to do."""
    if not (folder / "run").exists():
        shutil.copytree(built.run, folder / "run")
    recipe = yaml.safe_load(built.recipe.read_text())
    recipe["serving"] |= serving
    recipe["release_counter"] = 2
    path = built.recipe.with_name("limited.yaml")
    path.write_text(yaml.safe_dump(recipe))
    words = command(path, folder / "run", "--resume")
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
