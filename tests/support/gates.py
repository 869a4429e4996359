"""A file that stand-ins of engines wait for, so that a test decides when they go on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def gate() -> Iterator[Path]:
    """It lies in the folder for temporary files, since an artifact's settings may name no path outside of it."""
    with tempfile.NamedTemporaryFile(prefix="edgewright-gate-") as unique:
        path = Path(f"{unique.name}.open")
        yield path
        path.unlink(missing_ok=True)
