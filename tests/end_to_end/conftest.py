from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.tiny_build import write_inputs


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny build's recipe, its model, data, quiz and credentials beside it."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))
