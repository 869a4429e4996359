"""What `/v1/responses` answers where the engine, the agent or the client fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from edgewright_agent.engines import Reply
from edgewright_agent.telemetry.types import EndedRequest
from tests.agent.openai_api.responses.asking import EVENTS, QUESTION, post, text_of
from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve, until
from tests.support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_errors_of_the_engine_have_their_own_status(fake: Board) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await fake.client.responses.create(model="gpt-5", input=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="256") as long:
        await fake.client.responses.create(model="tiny", input="x" * 300)
    assert long.value.code == "context_length_exceeded"


async def test_leaving_frees_the_engine(fake: Board) -> None:
    stream = await fake.client.responses.create(model="tiny", input=QUESTION, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await until(lambda: not fake.agent.telemetry.serving().requests_in_flight, 5)
    assert await text_of(fake, input=QUESTION)


async def test_an_engine_that_dies_ends_the_stream_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
    ended: list[EndedRequest] = []
    async with board(tmp_path) as running:
        await serve(running.agent, {**TREE, "engine/fake.json": b'{"words": 40, "token_seconds": 0.02}'})
        running.agent.telemetry.subscribe(ended.append)
        stream = await running.client.responses.create(
            model="tiny", input=QUESTION, stream=True, temperature=0
        )
        lines = stream.response.aiter_lines()
        while "output_text.delta" not in await anext(lines):
            pass
        os.kill(running.agent.deployer.serving().engine.pid, signal.SIGKILL)
        events = [
            json.loads(line.removeprefix("data: ")) async for line in lines if line.startswith("data: ")
        ]
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert events[-1]["response"]["output"][0]["content"][0]["text"]
    EVENTS.validate_python(events[-1], strict=True)
    assert [request.finish_reason for request in ended] == ["error"]


async def test_the_official_client_raises_what_went_wrong_in_a_stream(
    fake: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        chunk = {"model": "tiny", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
        yield f"data: {json.dumps(chunk)}\n\n".encode()
        yield b'data: {"error": {"message": "it broke"}}\n\n'

    @contextlib.asynccontextmanager
    async def breaking(method: str, route: str, body: bytes = b"", client: str = "") -> AsyncIterator[Reply]:
        yield Reply(200, {"content-type": "text/event-stream"}, pieces())

    monkeypatch.setattr(fake.agent.deployer.serving().engine, "relay", breaking)
    stream = await fake.client.responses.create(model="tiny", input=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="it broke"):
        async for _ in stream:
            pass


async def test_an_agent_that_fails_says_so_in_openais_shape(
    fake: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(method: str, route: str, body: bytes = b"", client: str = "") -> Any:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(fake.agent.deployer.serving().engine, "relay", failing)
    async with httpx.AsyncClient(base_url=fake.url) as http:
        chat = await http.post("/chat/completions", json={"messages": []})
    for answer in (chat, await post(fake, input=QUESTION)):
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        assert "nobody foresaw" not in answer.text  # that is for the log


async def test_without_a_release_the_answer_is_503(tmp_path: Path) -> None:
    async with board(tmp_path, script=Script()) as empty:
        with pytest.raises(openai.InternalServerError, match="No release is being served") as error:
            await empty.client.responses.create(model="tiny", input=QUESTION)
        assert error.value.code == "no_active_release"
