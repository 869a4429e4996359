"""Liveness is an answer, not a process: an engine that no longer computes is noticed, and ended with the reason."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import DeathCause, GenerationRequest, Token
from edgewright_agent.engines.process import hang_detection
from edgewright_agent.engines.served import ServedEngine
from tests.support.engine_releases import CONTEXT_TOKENS, Release, asked_release, collect, fake_release

PROMPT = "on the other hand"
LONG = GenerationRequest(prompt=PROMPT, max_tokens=CONTEXT_TOKENS - 20, ignore_eos=True)


@pytest.fixture(
    params=["fake", "onnxruntime-genai", "llama.cpp", pytest.param("vllm", marks=pytest.mark.vllm)]
)
async def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServedEngine]:
    async with asked_release(request, tmp_path_factory, token_seconds=0.005).running() as engine:
        assert isinstance(engine, ServedEngine)
        yield engine


async def test_an_idle_engine_and_a_busy_one_answer_a_heartbeat(engine: ServedEngine) -> None:
    await engine.heartbeat()
    stream = engine.generate(LONG)
    await anext(stream)
    await engine.heartbeat()
    assert isinstance(await anext(stream), Token)
    await stream.aclose()
    await engine.heartbeat()


@pytest.mark.parametrize("kind", ["fake", "onnxruntime-genai"])
async def test_heartbeats_leave_every_kept_prompt_in_the_cache(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tiny: Release = request.getfixturevalue("tiny_onnx") if kind != "fake" else fake_release(tmp_path)
    async with tiny.running() as engine:
        assert isinstance(engine, ServedEngine)
        transport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=60) as http:
            # One takes the whole context, and then each of four an eighth.
            for prompts, tokens in (
                (["the other cat and the hat"], 200),
                ([f"{n} cats" for n in range(4)], 4),
            ):
                bodies = [{"prompt": text, "max_tokens": tokens, "temperature": 0} for text in prompts]
                first = [(await http.post("/v1/completions", json=body)).json() for body in bodies]
                for _ in range(3):
                    await engine.heartbeat()
                again = [(await http.post("/v1/completions", json=body)).json() for body in bodies]
                for before, after in zip(first, again, strict=True):
                    assert after["choices"] == before["choices"]
                    cached = after["usage"]["prompt_tokens_details"]["cached_tokens"]
                    assert cached == after["usage"]["prompt_tokens"] - 2


def impatient(engine: ServedEngine, patch: pytest.MonkeyPatch) -> None:
    """Watches the engine as the agent does, only more often."""
    patch.setattr(hang_detection, "HEARTBEAT_SPACING_SECONDS", 0.05)
    engine._launch = replace(engine._launch, heartbeat_seconds=3.0)
    engine.watch(None)


async def test_an_engine_whose_model_hangs_is_ended_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_release(tmp_path, hang_after_tokens=3).running() as engine:
        assert isinstance(engine, ServedEngine)
        impatient(engine, monkeypatch)
        with pytest.raises(OutsideError, match="hung: it computed nothing for 3 s") as caught:
            await collect(engine, GenerationRequest(prompt="x", max_tokens=20))
        assert caught.value.reason == Reason.REASON_ENGINE_FAILED
        death = await engine.wait()
        assert death.cause is DeathCause.HUNG
        assert death.requests_under_way == 1
        assert death.is_of_requests
        assert any("fake.py" in line and "_misbehave_on_token" in line for line in death.last_lines)


async def test_a_stopped_process_hangs_too_and_no_request_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_release(tmp_path).running() as engine:
        assert isinstance(engine, ServedEngine)
        impatient(engine, monkeypatch)
        await asyncio.sleep(0.3)  # it is watched, and answers
        assert await engine.healthy()
        os.kill(engine.pid, signal.SIGSTOP)
        death = await engine.wait()
        assert death.cause is DeathCause.HUNG
        assert not death.is_of_requests


async def test_a_heartbeat_that_is_not_answered_is_an_error_of_the_engine(tmp_path: Path) -> None:
    async with fake_release(tmp_path).running() as engine:
        assert isinstance(engine, ServedEngine)
        engine._launch = replace(engine._launch, heartbeat_seconds=0.3)
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(OutsideError, match=r"computed nothing for 0\.3 s") as caught:
            await engine.heartbeat()
        assert caught.value.reason == Reason.REASON_ENGINE_FAILED
        os.kill(engine.pid, signal.SIGCONT)  # so that it ends when it is told to


async def test_an_engine_that_dies_at_rest_is_not_of_requests(tmp_path: Path) -> None:
    async with fake_release(tmp_path).running() as engine:
        await collect(engine, GenerationRequest(prompt="x", max_tokens=2))
        os.kill(engine.pid, signal.SIGKILL)
        assert not (await engine.wait()).is_of_requests
