"""A simulated board that commands talk to, and an artifact to send there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_builder.artifact.artifact import Artifact
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.device_simulator import Board, simulated_in_thread
from tests.support.prompt_retries import prompt_retries

__all__ = ["prompt_retries"]  # the fixture


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))  # a push keeps what it has sent


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def host(board: Board) -> Iterator[str]:
    with simulated_in_thread(board) as address:
        yield str(address)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path / "artifact", {"engine/model.bin": bytes(3 * 1024 * 1024)}, KEY)
