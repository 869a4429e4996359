from __future__ import annotations

from pathlib import Path

import pytest

from tests.builder.report.sample_run import (
    write_sample_run,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_sample_run(tmp_path / "run")
