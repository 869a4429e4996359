"""The host's whole road on a tiny model, through the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edgewright.trust.keys import load_public_key
from edgewright_builder.artifact.artifact import open_artifact, verify_artifact
from edgewright_builder.run.resumable_run import STAGES
from tests.support.tiny_build import Built, command, edgewright, environment


@pytest.mark.timeout(600)
def test_a_recipe_becomes_a_signed_artifact(built: Built) -> None:
    key = load_public_key(built.recipe.parent / "credentials" / "release.pub")
    manifest = verify_artifact(built.run / "artifact", key).manifest
    assert manifest.model.layers == 3
    assert (manifest.model.group_size, manifest.model.weight_bits) == (64, 4)
    assert {row.model for row in manifest.accuracy} == {
        "teacher", "student", "finetuned", "quantized", "recovered", "exported",
    }  # fmt: skip
    assert manifest.golden is not None
    assert len(manifest.golden.tokens) == len(manifest.golden.leads) > 0
    assert max(manifest.golden.leads) > 0
    expected = {
        "base_sha256",
        "knowledge_teacher_sha256",
        "data_sha256",
        "recipe",
        "hyperparameters",
        "quantization",
    }
    assert expected <= manifest.lineage.keys()
    # what was used, not what was asked for
    assert 512 <= manifest.lineage["quantization"]["calibration_tokens"] <= 12288


@pytest.mark.timeout(600)
def test_a_manifest_holds_no_path_of_the_machine_that_built_it(built: Built) -> None:
    lineage = json.loads((built.run / "artifact" / "manifest.json").read_text(encoding="utf-8"))["lineage"]
    assert str(built.recipe.parent) not in json.dumps(lineage)


@pytest.mark.timeout(600)
def test_every_trial_and_stage_left_its_record(built: Built) -> None:
    for stage in STAGES:
        assert json.loads((built.run / stage / "stage.json").read_text(encoding="utf-8"))["status"] == "done"
    trials = json.loads((built.run / "search" / "trials.json").read_text(encoding="utf-8"))
    assert [trial["state"] for trial in trials] == ["complete"] * 3


@pytest.mark.timeout(600)
def test_a_second_build_runs_nothing_and_an_unresumed_one_is_refused(built: Built) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.run.rglob("stage.json")}
    done = subprocess.run(
        command(built.recipe, built.run, "--resume"),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done before, kept") == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in built.run.rglob("stage.json")} == before
    refused = edgewright(*command(built.recipe, built.run)[3:])
    assert (refused.returncode, "add --resume" in refused.stderr) == (1, True)


@pytest.mark.timeout(600)
def test_the_report_of_a_build_is_written(built: Built) -> None:
    done = edgewright("report", str(built.run))
    assert done.returncode == 0, done.stderr
    assert (built.run / "report.html").stat().st_size > 10_000


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", STAGES)
def test_a_build_killed_in_a_stage_resumes_to_the_same_artifact(
    built: Built, stage: str, tmp_path: Path
) -> None:
    with subprocess.Popen(
        command(built.recipe, tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    ) as victim:
        _wait_for(tmp_path / "run" / stage / "started", victim)
        time.sleep(0.5)  # somewhere inside the stage
        victim.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / "package" / "stage.json").exists()
    done = subprocess.run(
        command(built.recipe, tmp_path / "run", "--resume"),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert open_artifact(tmp_path / "run" / "artifact").digest == open_artifact(built.run / "artifact").digest


@pytest.mark.crash
@pytest.mark.timeout(1800)
def test_a_search_killed_in_its_second_trial_suggests_what_an_undisturbed_one_does(
    built: Built, tmp_path: Path
) -> None:
    trials = tmp_path / "run" / "search" / "trials.json"
    with subprocess.Popen(
        command(built.recipe, tmp_path / "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    ) as victim:
        _wait_for(trials, victim)  # the first trial is complete
        victim.send_signal(signal.SIGKILL)
    subprocess.run(
        command(built.recipe, tmp_path / "run", "--resume"),
        check=True,
        capture_output=True,
        env=environment(),
    )

    def completed(path: Path) -> list[object]:
        return [(t["params"], t["value"]) for t in json.loads(path.read_text()) if t["state"] == "complete"]

    assert completed(trials) == completed(built.run / "search" / "trials.json")


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, process.stdout.read().decode() if process.stdout else ""
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)
