"""vLLM itself: kernels, processes, memory, and the same GPTQ checkpoint in both engines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from edgewright.errors import OutsideError, RefusedError
from edgewright_agent.engines import DeathCause, EngineLimits, GenerationRequest, ScoreItem, start_engine
from edgewright_agent.engines.process.cpus import choose_cpus
from edgewright_agent.engines.served import ServedEngine
from tests.support.engine_releases import VLLM_READY_SECONDS, Release, collect, require_vllm

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

MIB = 1 << 20
ITEMS = [
    ScoreItem("the cat sat on", [" the mat", " a", " on and on and then on another one"]),
    ScoreItem("where? ", ["here", "there and then"]),
    ScoreItem("", ["the"]),
]


@dataclass(frozen=True)
class Twins:
    """One GPTQ checkpoint, exported for both engines."""

    onnx: Release
    vllm: Release


@pytest.fixture(scope="module")
def twins(tiny_onnx: Release, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    require_vllm()
    folder = tmp_path_factory.mktemp("twins")
    script = Path(__file__).parents[3] / "support" / "tiny_gptq.py"
    made = subprocess.run(
        [sys.executable, script, tiny_onnx.tree / "checkpoint", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return Twins(
        Release("onnxruntime-genai", folder / "onnx", folder / "run"),
        Release(
            "vllm",
            folder / "vllm",
            folder / "run",
            concurrency=2,
            threads=1,
            ready_seconds=VLLM_READY_SECONDS,
        ),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(twins: Twins) -> AsyncIterator[ServedEngine]:
    async with twins.vllm.running() as engine:
        assert isinstance(engine, ServedEngine)
        yield engine


def processes(engine: ServedEngine) -> list[psutil.Process]:
    root = psutil.Process(engine.pid)
    return [root, *root.children(recursive=True)]


async def test_the_kernel_it_chose_for_gptq_is_known(engine: ServedEngine) -> None:
    assert any(kernel.startswith("CPUWNA16LinearKernel for ") for kernel in engine.kernels()), (
        engine.kernels()
    )


async def test_all_its_processes_keep_to_their_processors(engine: ServedEngine) -> None:
    (cpu,) = choose_cpus(1)
    found = {process.name(): os.sched_getaffinity(process.pid) for process in processes(engine)}
    assert {"VLLM::EngineCore", "VLLM::Worker"} <= found.keys()
    assert set(map(frozenset, found.values())) == {frozenset({cpu})}


async def test_the_same_checkpoint_scores_alike_in_both_engines(engine: ServedEngine, twins: Twins) -> None:
    async with twins.onnx.running() as other:
        expected = [score for item in await other.score(ITEMS) for score in item]
    found = [score for item in await engine.score(ITEMS) for score in item]
    assert [score.tokens for score in found] == [score.tokens for score in expected]
    for ours, theirs in zip(found, expected, strict=True):
        # ONNX Runtime multiplies in int8 and keeps the embedding in 8 bits, vLLM both in 16.
        assert ours.log_likelihood / ours.tokens == pytest.approx(
            theirs.log_likelihood / theirs.tokens, abs=0.1
        )


async def test_adapters_are_refused(engine: ServedEngine, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="takes no adapters"):
        await engine.use_adapter(tmp_path / "adapter", "other")
    assert (await collect(engine, GenerationRequest(prompt="the", max_tokens=1)))[2].generated_tokens == 1


async def test_when_one_of_its_processes_ends_the_others_do_and_it_is_told(engine: ServedEngine) -> None:
    """Last, as it ends the engine."""
    before = processes(engine)
    core = next(process for process in before if process.name() == "VLLM::EngineCore")
    stream = engine.generate(GenerationRequest(prompt="the", max_tokens=200, ignore_eos=True))
    await anext(stream)
    os.kill(core.pid, signal.SIGKILL)
    with pytest.raises(OutsideError, match=r"its process VLLM::EngineCore ended"):
        [item async for item in stream]
    death = await asyncio.wait_for(engine.wait(), 10)
    assert (death.cause, death.lost) == (DeathCause.KILLED, "VLLM::EngineCore")
    assert not [process for process in before if alive(process)]


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_it_does_not_live_beyond_its_budget(twins: Twins) -> None:
    """By the kernel while it loads, where the agent may make a control group; else by the agent once it serves."""
    release, limits = twins.vllm, EngineLimits(64, threads=1, memory_bytes=256 * MIB)
    try:
        engine = await start_engine(
            "vllm", release.tree, release.manifest, limits,
            runtime_dir=release.runtime_dir, ready_timeout_seconds=VLLM_READY_SECONDS,
        )  # fmt: skip
    except OutsideError as error:
        assert "out of memory" in str(error)  # noqa: PT017 - either is right
        return
    death = await asyncio.wait_for(engine.wait(), 10)
    assert death.cause is DeathCause.OVER_BUDGET
