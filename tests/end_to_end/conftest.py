from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.tiny_build import Built, command, environment, write_inputs


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny build's recipe, its model, data, quiz and credentials beside it."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def built(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The tiny build, undisturbed."""
    run = tmp_path_factory.mktemp("build") / "run"
    done = subprocess.run(
        command(recipe, run), capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Built(recipe, run, done.stdout)
