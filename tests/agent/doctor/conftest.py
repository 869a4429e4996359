"""Folders and keys that several of the doctor's tests examine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_builder.keys.credentials import create_credentials


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can reach: those above `tmp_path` are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    create_credentials(folder)
    return folder
