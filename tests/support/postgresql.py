"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """Yields the server's address. Skips where its binaries are not installed."""
    pgserver = pytest.importorskip("pgserver", reason="PostgreSQL's binaries come with pgserver")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pgserver.get_server(folder, cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
