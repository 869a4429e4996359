"""Starting, watching and ending engine processes that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edgewright.errors import OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engine_worker.model.fake import fake_tokens
from edgewright_agent.engines import (
    DeathCause,
    EngineLimits,
    GenerationRequest,
    available_engines,
    start_engine,
)
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.process.process import EngineProcess
from tests.support.engine_releases import collect, fake_release

HEAVY = (
    "onnxruntime",
    "onnxruntime_genai",
    "numpy",
    "tokenizers",
    "jinja2",
    "starlette",
    "uvicorn",
    "torch",
    "vllm",
)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def test_an_engine_that_crashes_on_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    release = fake_release(tmp_path, crash_on_start="weights are corrupt")
    with pytest.raises(OutsideError, match=r"exit code 3.*weights are corrupt") as caught:
        await release.start()
    assert caught.value.reason == Reason.REASON_ENGINE_FAILED
    assert not list(release.runtime_dir.iterdir())


async def test_only_the_engine_that_starts_is_asked_whether_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, asked = tmp_path / "llama-server", tmp_path / "asked"
    server.write_text(f"#!/bin/sh\ntouch {asked}\n", encoding="utf-8")
    server.chmod(0o755)
    monkeypatch.setenv("EDGEWRIGHT_LLAMA_SERVER", str(server))
    async with fake_release(tmp_path).running():
        assert not asked.exists()


async def test_an_engine_whose_process_can_t_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOO_LONG_FOR_THE_KERNEL", "x" * (128 * 1024))
    release = fake_release(tmp_path)
    with pytest.raises(OutsideError, match=r"'fake' could not be started: .*Free memory") as caught:
        await release.start()
    assert caught.value.reason == Reason.REASON_ENGINE_FAILED
    assert not list(release.runtime_dir.iterdir())


async def test_a_process_that_can_t_be_bound_to_its_processors_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        await EngineProcess.spawn(["sleep", "1000"], os.environ, cpus=frozenset({10_000}))
    while children():
        await asyncio.sleep(0.02)


async def test_an_engine_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(OutsideError, match=r"not ready after 2 s"):
        await fake_release(tmp_path, never_ready=True).start(timeout_seconds=2)
    assert time.monotonic() - begin >= 2
    assert not children()


async def test_cancelling_a_start_leaves_no_process(tmp_path: Path) -> None:
    starting = asyncio.create_task(fake_release(tmp_path, never_ready=True).start())
    await asyncio.sleep(0.5)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not children()


async def test_a_crash_while_generating_is_classified(tmp_path: Path) -> None:
    release = fake_release(tmp_path, crash_after_tokens=5, crash_signal=int(signal.SIGSEGV))
    async with release.running() as engine:
        waiting = asyncio.create_task(engine.wait())
        with pytest.raises(OutsideError, match="signal 11"):
            await collect(engine, GenerationRequest(prompt="x", max_tokens=20))
        assert (await waiting).cause is DeathCause.KILLED
        assert (await engine.wait()).signal == signal.SIGSEGV


async def test_an_error_inside_the_engine_fails_the_request_and_not_the_engine(tmp_path: Path) -> None:
    async with fake_release(tmp_path, fail_after_tokens=5).running() as engine:
        with pytest.raises(OutsideError, match="told to fail") as caught:
            await collect(engine, GenerationRequest(prompt="x", max_tokens=20))
        assert caught.value.reason == Reason.REASON_ENGINE_FAILED
        assert await engine.healthy()


async def test_another_salt_is_another_model(tmp_path: Path) -> None:
    prompt, request = list(b"golden"), GenerationRequest(prompt="golden", max_tokens=30)
    for salt in ("", "wrong"):
        async with fake_release(tmp_path / f"salt{salt}", salt=salt).running() as engine:
            expected = [token for token, _ in zip(fake_tokens(prompt, salt), range(30), strict=False)]
            assert (await collect(engine, request))[1] == expected
    assert expected != [token for token, _ in zip(fake_tokens(prompt), range(30), strict=False)]


async def test_memory_counts_what_the_engine_allocates(tmp_path: Path) -> None:
    async with fake_release(tmp_path / "small").running() as engine:
        small = engine.memory()
    async with fake_release(tmp_path / "large", allocate_mib=64).running() as engine:
        large = engine.memory()
        assert large.now_bytes - small.now_bytes == pytest.approx(64 << 20, rel=0.1)
        assert large.peak_bytes >= large.now_bytes
    assert engine.memory().now_bytes == 0
    assert engine.memory().peak_bytes >= large.peak_bytes


async def test_an_engine_dies_with_the_agent(tmp_path: Path) -> None:
    release = fake_release(tmp_path)
    script = f"""
import asyncio, pathlib
from edgewright_agent.engines import EngineLimits, start_engine
from edgewright.manifest import parse_manifest
async def main():
    manifest = parse_manifest(pathlib.Path({str(tmp_path / "manifest.json")!r}).read_bytes())
    engine = await start_engine("fake", pathlib.Path({str(release.tree)!r}), manifest, EngineLimits(64),
        runtime_dir=pathlib.Path({str(tmp_path)!r}), ready_timeout_seconds=30)
    print(engine.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    (tmp_path / "manifest.json").write_bytes(release.manifest.to_bytes())
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    pid = int(await agent.stdout.readline())
    assert psutil.pid_exists(pid)
    agent.kill()
    await agent.wait()
    await asyncio.to_thread(psutil.Process(pid).wait, 5) if psutil.pid_exists(pid) else None
    assert not psutil.pid_exists(pid)


async def test_a_long_runtime_path_still_gets_a_socket(tmp_path: Path) -> None:
    release = fake_release(tmp_path)
    engine = await start_engine(
        "fake",
        release.tree,
        release.manifest,
        EngineLimits(64),
        runtime_dir=tmp_path / ("long" * 30),
        ready_timeout_seconds=30,
    )
    assert await engine.healthy()
    await engine.stop()


async def test_an_engine_that_cannot_run_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = fake_release(tmp_path)
    monkeypatch.delenv("EDGEWRIGHT_FAKE_ENGINE")
    with pytest.raises(RefusedError, match="EDGEWRIGHT_FAKE_ENGINE") as caught:
        await release.start()
    assert caught.value.reason == Reason.REASON_ENGINE_UNAVAILABLE


def test_engines_are_listed_with_the_reason_they_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_VLLM", "/nowhere/vllm")
    engines = {info.kind: info for info in available_engines()}
    assert engines["onnxruntime-genai"].available
    assert engines["onnxruntime-genai"].version
    assert not engines["vllm"].available
    assert "/nowhere/vllm" in engines["vllm"].detail
    monkeypatch.setenv("EDGEWRIGHT_ONNX_PYTHON", "/nowhere/python")
    engines = {info.kind: info for info in available_engines()}
    assert not engines["onnxruntime-genai"].available
    assert "/nowhere/python" in engines["onnxruntime-genai"].detail


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_listing_engines_imports_none_of_them() -> None:
    loaded = loaded_after("from edgewright_agent.engines import available_engines; available_engines()")
    assert "edgewright_agent.engines" in loaded
    assert not loaded & set(HEAVY)


def test_the_engine_s_process_imports_nothing_of_the_agent() -> None:
    loaded = loaded_after(
        "import edgewright_agent.engine_worker.__main__, edgewright_agent.engine_worker.model.onnx"
    )
    ours = {name for name in loaded if name.startswith("edgewright_agent.")}
    assert ours
    assert all(name.startswith("edgewright_agent.engine_worker") for name in ours)
    assert not loaded & {"grpc", "google.protobuf", "torch", "httpx"}


async def test_output_without_line_ends_does_not_fill_the_memory(tmp_path: Path) -> None:
    from edgewright_agent.engines.process.process import LINE_BYTES_MAX, LINES_KEPT, EngineProcess

    flood = "import sys; sys.stdout.write('x' * 5_000_000 + '\\nlast words'); sys.exit(7)"
    process = await EngineProcess.spawn([sys.executable, "-c", flood], dict(os.environ))
    death = await process.wait()
    assert (death.exit_code, death.last_lines[-1]) == (7, "last words")
    assert len(death.last_lines) <= LINES_KEPT
    assert max(map(len, death.last_lines)) <= LINE_BYTES_MAX


async def test_an_engine_that_is_not_ready_in_time_is_given_up_also_if_a_cancellation_gets_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(self: EngineClient) -> bool:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.02)
        return False

    monkeypatch.setattr(EngineClient, "healthy", deaf)
    starting = fake_release(tmp_path, never_ready=True).start(timeout_seconds=0.5)
    with pytest.raises(OutsideError, match=r"not ready after 0\.5 s"):
        await asyncio.wait_for(starting, 60)
