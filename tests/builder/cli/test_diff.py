from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgewright.errors import InputError
from edgewright.v1.deployment_pb2 import Release, ReleaseState
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.cli.main import app
from edgewright_builder.push import pushed_before
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.device_simulator import Board, simulated_in_thread


@pytest.fixture
def artifacts(tmp_path: Path) -> tuple[Artifact, Artifact]:
    rows = [{"task": "quiz", "model": "exported", "accuracy": 0.5, "standard_error": 0.03, "rows": 100}]
    old = make_artifact(tmp_path / "old", {"m.bin": bytes(5000)}, KEY, accuracy=rows, version="1")
    better = [rows[0] | {"accuracy": 0.55}]
    new = make_artifact(
        tmp_path / "new", {"m.bin": bytes(range(250)) * 20}, KEY, accuracy=better, version="2"
    )
    return old, new


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["diff", *map(str, arguments)])


def test_two_folders_are_compared_in_words(artifacts: tuple[Artifact, Artifact]) -> None:
    old, new = artifacts
    text = invoke(old.folder, new.folder).output
    assert text.startswith(f"{old.digest[:12]} → {new.digest[:12]}")
    assert "version" in text
    assert "+0.050 ± 0.042" in text
    assert "a push sends 4.9 KiB as chunks" in text
    assert "They are the same artifact." in invoke(old.folder, old.folder).output


def test_a_script_gets_one_document(artifacts: tuple[Artifact, Artifact]) -> None:
    old, new = artifacts
    document = json.loads(invoke(old.folder, new.folder, "--json").output)
    assert document["transfer"]["plain_bytes"] == 5000
    assert 0 < document["transfer"]["delta_bytes"] < 1000
    assert [field["name"] for field in document["fields"]] == ["version"]


def test_what_is_neither_a_folder_nor_a_board_is_refused() -> None:
    error = invoke("nowhere", "nowhere").exception
    assert isinstance(error, InputError)
    assert "neither an artifact's folder nor HOST:PORT" in str(error)


def test_a_board_s_release_is_found_among_what_was_pushed(
    artifacts: tuple[Artifact, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = artifacts
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))
    active, staged = ReleaseState.RELEASE_STATE_ACTIVE, ReleaseState.RELEASE_STATE_STAGED
    board = Board(
        releases=[
            Release(release=bytes.fromhex(old.digest), state=active),
            Release(release=bytes.fromhex(new.digest), state=staged),
        ]
    )
    with simulated_in_thread(board) as address:
        host = str(address)
        missing = invoke(host, new.folder, "--insecure").exception
        assert isinstance(missing, InputError)
        assert "only artifacts pushed from here are kept" in str(missing)
        pushed_before.remember(old)
        pushed_before.remember(new)
        for which in (host, f"{host}/{old.digest[:10]}"):
            text = invoke(which, f"{host}/{new.digest}", "--insecure").output
            assert text.startswith(f"{old.digest[:12]} → {new.digest[:12]}")
        wrong = invoke(f"{host}/zzz", new.folder, "--insecure").exception
        assert isinstance(wrong, InputError)
        assert "has 0 releases whose digest begins with zzz" in str(wrong)
