"""An engine's memory while its processes come to an end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edgewright_agent.engines.process.memory import TreeMemory


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_an_engine_reaped_while_its_tree_is_read_is_gone(
    engine: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, scandir = TreeMemory(engine.pid), os.scandir
    before = memory.read()
    assert before.now_bytes > 0

    def reaped_first(path: Any = ".") -> Any:
        if str(path) == f"/proc/{engine.pid}/task":
            engine.kill()
            engine.wait()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", reaped_first)
    after = memory.read()
    assert engine.poll() is not None
    assert (after.now_bytes, after.peak_bytes) == (0, before.peak_bytes)
    assert memory.read_peak_bytes() == before.peak_bytes
