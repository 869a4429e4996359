"""`edgewright push` to one board: what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

from edgewright.errors import RefusedError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright_builder.artifact.artifact import Artifact
from tests.support.commands import invoke, output
from tests.support.device_simulator import Board


def test_push_says_what_will_travel_and_ends_with_the_verdict(host: str, artifact: Artifact) -> None:
    lines = output("push", artifact.folder, host, "--insecure").splitlines()
    assert lines[0] == f"tiny 1.0 ({artifact.digest[:12]})"
    assert lines[1] == "  full: 3.0 MiB to send (1 of 1 files)"
    assert lines[-1] == "committed: it is active"
    assert any(line.startswith("  sent 100 % at ") for line in lines)
    assert "\t".join(["ready", "required", "passed", "in 0.1 s"]) in lines


def test_a_second_push_says_that_nothing_travels(host: str, artifact: Artifact) -> None:
    output("push", artifact.folder, host, "--insecure")
    assert "nothing to send: the board has all 3.0 MiB of it" in output(
        "push", artifact.folder, host, "--insecure"
    )


def test_push_in_json_is_one_document_also_in_the_file(host: str, artifact: Artifact, tmp_path: Path) -> None:
    saved = tmp_path / "device" / "push.json"
    text = output("push", artifact.folder, host, "--insecure", "--json", "--save", saved)
    document = json.loads(text)
    assert document == json.loads(saved.read_text())
    assert document["release"] == artifact.digest
    assert document["sent_bytes"] == 3 * 1024 * 1024
    assert document["verdict"]["outcome"] == "committed"


def test_push_of_a_release_that_rolls_back_is_refused_with_the_reason(
    board: Board, host: str, artifact: Artifact
) -> None:
    board.verdict = [
        deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, active_release=b"\2" * 32, message="probe peak_memory failed",
            outcome=deployment.OUTCOME_ROLLED_BACK,
        )
    ]  # fmt: skip
    result = invoke("push", artifact.folder, host, "--insecure")
    assert isinstance(result.exception, RefusedError)
    assert "did not keep the release (probe peak_memory failed); it serves 020202020202" in str(
        result.exception
    )


def test_push_without_activation_stages_only(board: Board, host: str, artifact: Artifact) -> None:
    assert output("push", artifact.folder, host, "--insecure", "--no-activate").endswith(
        "staged; not activated\n"
    )
    assert "ActivateRelease" not in board.calls


def test_an_artifact_signed_by_another_key_than_the_credentials_is_not_sent(
    board: Board, artifact: Artifact, tmp_path: Path
) -> None:
    output("keys", "create", tmp_path / "keys")
    result = invoke("push", artifact.folder, "localhost:1", "--credentials", tmp_path / "keys")
    assert isinstance(result.exception, RefusedError)
    assert "trusted here" in str(result.exception)
