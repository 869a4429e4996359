"""What every engine promises of its process: memory, end, death, and the files that it reads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import (
    DeathCause,
    Engine,
    GenerationRequest,
    ScoreItem,
)
from edgewright_agent.engines.served import ServedEngine
from tests.agent.engines.contract.requests import EDGE_LLM, LONG, ONE_TOKEN, PROMPT
from tests.support.engine_releases import Release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_memory_is_measured_and_never_above_its_peak(engine: Engine) -> None:
    memory = engine.memory()
    assert 10 << 20 < memory.now_bytes <= memory.peak_bytes
    assert memory.measure in ("pss, peak rss", "pss, peaks added", "rss")


async def test_stopping_leaves_no_process_and_no_socket(release: Release) -> None:
    engine = await release.start()
    assert isinstance(engine, ServedEngine)
    pid, folder = engine.pid, engine.socket.parent
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0
    await engine.stop()
    death = await engine.wait()
    assert death.cause is DeathCause.STOPPED
    assert not psutil.pid_exists(pid)
    assert not folder.exists()
    assert not await engine.healthy()
    await engine.stop()


async def test_a_killed_engine_dies_with_its_signal_and_fails_what_it_served(release: Release) -> None:
    async with release.running() as engine:
        stream = engine.generate(LONG)
        await anext(stream)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(OutsideError, match="signal 9") as caught:
            [item async for item in stream]
        assert caught.value.reason == Reason.REASON_ENGINE_FAILED
        death = await engine.wait()
        assert death.signal == signal.SIGKILL
        assert death.cause is DeathCause.KILLED
        assert not await engine.healthy()
        with pytest.raises(OutsideError):
            await collect(engine, ONE_TOKEN)
        if release.kind != EDGE_LLM:
            with pytest.raises(OutsideError):
                await engine.score([ScoreItem("a", ["b"])])


async def test_the_engine_reads_the_release_and_changes_nothing(release: Release) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        files = (path for path in release.tree.rglob("*") if path.is_file())
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = state()
    async with release.running() as engine:
        await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=2))
    assert state() == before
