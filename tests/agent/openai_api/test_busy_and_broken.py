"""More requests than are served, clients that leave, engines that die, and no release at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from edgewright_agent.telemetry.types import EndedRequest
from tests.support.artifacts import TREE
from tests.support.openai_servers import (
    TO_THE_END,
    Board,
    board,
    serve,
    served,
    still_serves,
    until,
)
from tests.support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_without_a_release_the_answer_is_503_and_says_so(tmp_path: Path) -> None:
    async with board(tmp_path, script=Script()) as empty:
        for call in (
            empty.client.models.list(),
            empty.client.completions.create(model="tiny", prompt="hello"),
        ):
            with pytest.raises(openai.InternalServerError, match="No release is being served") as error:
                await call
            assert error.value.status_code == 503
            assert error.value.code == "no_active_release"


async def test_a_client_that_leaves_frees_the_engine_at_once(tmp_path: Path) -> None:
    script = Script(pause_seconds=0.005)
    async with board(tmp_path, script=script) as running:
        await serve(running.agent, TREE)
        stream = await running.client.completions.create(
            model="tiny", prompt="hello", max_tokens=100_000, stream=True
        )
        await anext(aiter(stream))
        (engine,) = script.running
        assert engine.active_requests == 1
        await stream.close()
        await until(lambda: not engine.active_requests and not served(running).requests_in_flight, 1.0)
        await running.client.completions.with_raw_response.create(model="tiny", prompt="x", max_tokens=1)


async def test_leaving_frees_the_engines_process_too(fake: Board) -> None:
    stream = await fake.client.completions.create(
        model="tiny", prompt="hello", max_tokens=200, stream=True, extra_body=TO_THE_END
    )
    await anext(aiter(stream))
    await stream.close()
    await asyncio.wait_for(still_serves(fake), 5.0)
    await until(lambda: not served(fake).requests_in_flight, 5.0)


async def test_eight_clients_at_once_are_all_served_and_more_are_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    script = Script(pause_seconds=0.01)
    async with board(tmp_path, script=script) as running:
        await serve(running.agent, TREE, limits={"context_tokens": 256, "concurrency": 1})

        async def ask(tokens: int) -> int:
            stream = await running.client.completions.create(
                model="tiny", prompt="hello", max_tokens=tokens, stream=True
            )
            return len([chunk async for chunk in stream])

        assert await asyncio.gather(*(ask(5) for _ in range(8))) == [5] * 8
        crowd = [asyncio.create_task(ask(30)) for _ in range(12)]
        done = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [each for each in done if isinstance(each, openai.RateLimitError)]
        assert len(refused) == 3  # one is served, eight wait
        assert done.count(30) == 9
        assert refused[0].code == "rate_limit_exceeded"
        assert 1 <= int(refused[0].response.headers["retry-after"]) <= 60
        assert served(running).requests_rejected == 3


async def test_an_engine_that_dies_is_an_error_in_the_stream_and_comes_back(tmp_path: Path) -> None:
    script = Script(pause_seconds=0.005)
    ended: list[EndedRequest] = []
    async with board(tmp_path, script=script) as running:
        await serve(running.agent, TREE)
        running.agent.telemetry.subscribe(ended.append)
        stream = await running.client.completions.create(
            model="tiny", prompt="hello", max_tokens=1000, stream=True
        )
        chunks = aiter(stream)
        await anext(chunks)
        script.running[0].die()
        with pytest.raises(openai.APIError, match="The engine is gone"):
            async for _ in chunks:
                pass
        while len(script.engines) < 2:
            await asyncio.sleep(0.005)
        assert [request.finish_reason for request in ended] == ["error"]
