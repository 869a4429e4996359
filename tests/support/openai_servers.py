"""Agents that serve the OpenAI-compatible API, and releases behind it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import openai
from openai.types.chat import ChatCompletionMessageParam

from edgewright.address import Address
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.openai_api.settings import OpenAISettings
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.telemetry.types import ServingSummary
from tests.agent.conftest import settings_for
from tests.support.artifacts import TIMEOUT_SECONDS, make_artifact, push
from tests.support.engine_releases import Release
from tests.support.scripted_engine import Script, only_fake

READY_SECONDS = 300.0  # vLLM takes its time
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why do plants need sunlight?"}]
TO_THE_END = {"ignore_eos": True}  # vLLM's extension: answers have the length that was asked for
LOOPBACK = OpenAISettings(Address("127.0.0.1", 0))


@dataclass(frozen=True)
class Board:
    """An agent, and OpenAI's official client of its API."""

    agent: RunningAgent
    client: openai.AsyncOpenAI

    @property
    def url(self) -> str:
        assert self.agent.openai is not None
        return self.agent.openai


@contextlib.asynccontextmanager
async def board(
    folder: Path, openai_settings: OpenAISettings = LOOPBACK, *, script: Script | None = None
) -> AsyncIterator[Board]:
    """An agent without a release; its engines are processes, or follow `script`."""
    settings = settings_for(folder / "store", openai=openai_settings)
    engines: dict[str, Any] = (
        {} if script is None else {"available_engines": only_fake, "start_engine": script.start}
    )
    async with run_agent(settings, **engines) as agent:
        assert agent.openai is not None
        key = openai_settings.key or "none"
        async with openai.AsyncOpenAI(
            base_url=agent.openai, api_key=key, max_retries=0, timeout=30.0
        ) as client:
            yield Board(agent, client)


async def serve(agent: RunningAgent, tree: Mapping[str, bytes], **fields: Any) -> None:
    """Pushes and activates a release of these files."""
    async with grpc.aio.insecure_channel(str(agent.address)) as channel:
        release = await push(channel, make_artifact(tree, **fields))
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        request = deployment_pb2.ActivateReleaseRequest(release=release)
        await stub.ActivateRelease(request, timeout=TIMEOUT_SECONDS)
        watch = stub.WatchDeployment(deployment_pb2.WatchDeploymentRequest(), timeout=READY_SECONDS)
        steps = [step async for step in watch]
        assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED, steps[-1].message


def files_of(release: Release) -> dict[str, bytes]:
    """The files of a release's tree."""
    files = (path for path in release.tree.rglob("*") if path.is_file())
    return {str(path.relative_to(release.tree)): path.read_bytes() for path in files}


async def until(holds: Callable[[], bool], seconds: float) -> None:
    """Returns once it holds; fails the test if it takes longer."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.005)


def served(running: Board) -> ServingSummary:
    return running.agent.telemetry.serving()


async def idle(running: Board) -> ServingSummary:
    """What was served, once nothing is under way."""
    while served(running).requests_in_flight:
        await asyncio.sleep(0.005)
    return served(running)


async def chat_text(running: Board, messages: list[Any], **options: Any) -> str:
    body = {"messages": messages, "temperature": 0, "max_tokens": 40, **options}
    async with httpx.AsyncClient(base_url=running.url) as http:
        answer = await http.post("/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


async def still_serves(running: Board) -> None:
    answer = await running.client.completions.create(
        model="tiny", prompt="hello", max_tokens=2, extra_body=TO_THE_END
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2
