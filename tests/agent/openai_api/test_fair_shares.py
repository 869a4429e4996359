"""Clients of the OpenAI API share the engine: one that asks for much, or has much refused, does so at its own cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from edgewright.v1 import inference_pb2, inference_pb2_grpc
from edgewright_agent.deployment import refusal_throttle as refusals
from edgewright_agent.engines import Reply
from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve
from tests.support.scripted_engine import Script

LIMITS = {"context_tokens": 256, "concurrency": 2}
LONG = {"prompt": "x", "max_tokens": 20, "stream": True}
SHORT = {"prompt": "x", "max_tokens": 3, "stream": True}


@contextlib.asynccontextmanager
async def client_at(running: Board, address: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=httpx.Limits(max_connections=None))
    async with httpx.AsyncClient(base_url=running.url, transport=transport, timeout=None) as client:
        yield client


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> int:
    return (await client.post("/completions", json=body)).status_code


async def test_a_client_with_a_crowd_of_long_requests_leaves_the_others_their_share(tmp_path: Path) -> None:
    script, refused = Script(pause_seconds=0.01), asyncio.Event()

    async def ask_for_ever(client: httpx.AsyncClient) -> None:
        while True:
            if await ask(client, LONG) == 429:
                refused.set()
                await asyncio.sleep(0.05)

    async with (
        board(tmp_path, script=script) as running,
        client_at(running, "127.0.0.2") as greedy,
        client_at(running, "127.0.0.3") as good,
    ):
        await serve(running.agent, TREE, limits=LIMITS)
        crowd = [asyncio.create_task(ask_for_ever(greedy)) for _ in range(12)]
        try:
            await refused.wait()  # the queue is full of them
            for _ in range(5):
                assert await ask(good, SHORT) == 200
        finally:
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)


async def test_a_client_whose_requests_are_refused_again_and_again_has_to_wait_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.asynccontextmanager
    async def refuse(method: str, route: str, body: bytes = b"", client: str = "") -> AsyncIterator[Reply]:
        async def pieces() -> Any:
            yield b'{"error":{"message":"It is wrong.","type":"invalid_request_error","code":null}}'

        yield Reply(400, {"content-type": "application/json"}, pieces())

    monkeypatch.setattr(refusals, "QUICK_SECONDS", 0.0)
    monkeypatch.setattr(refusals, "FREE_SECONDS", 0.0)
    monkeypatch.setattr(refusals, "SHARE", 1e-9)
    script = Script()
    async with (
        board(tmp_path, script=script) as running,
        client_at(running, "127.0.0.2") as hostile,
        client_at(running, "127.0.0.3") as good,
    ):
        await serve(running.agent, TREE)
        answer = script.running[0].relay
        with monkeypatch.context() as patch:
            patch.setattr(script.running[0], "relay", refuse)
            assert await ask(hostile, SHORT) == 400
        script.running[0].relay = answer  # type: ignore[method-assign]
        refused = await hostile.post("/completions", json=SHORT)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 10
        assert await ask(good, SHORT) == 200


async def test_the_engine_learns_which_client_asks(tmp_path: Path) -> None:
    script = Script()
    async with (
        board(tmp_path, script=script) as running,
        client_at(running, "127.0.0.2") as one,
        client_at(running, "127.0.0.3") as other,
    ):
        await serve(running.agent, TREE, limits=LIMITS)
        probes = len(script.engines[-1].clients)
        for client in (one, other, one):
            assert await ask(client, SHORT) == 200
        async with grpc.aio.insecure_channel(str(running.agent.address)) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            async for _ in stub.Generate(inference_pb2.GenerateRequest(prompt="x", max_tokens=2)):
                pass
    assert script.engines[-1].clients[probes:] == ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.1"]
