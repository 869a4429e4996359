"""What every engine promises of requests at once, waiting and cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from edgewright.errors import BusyError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import (
    Engine,
    GenerationRequest,
    Token,
)
from tests.agent.engines.contract.requests import EDGE_LLM, LONG, ONE_TOKEN, PROMPT
from tests.support.engine_releases import CONTEXT_TOKENS, Release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRIES = 3


async def best_of(tries: int, measure: Callable[[], Awaitable[float]]) -> float:
    """Returns the least of a few measurements: a busy machine only adds."""
    return min([await measure() for _ in range(tries)])


async def test_cancelling_frees_the_engine_at_once(engine: Engine) -> None:
    async def seconds_until_another_is_served() -> float:
        stream = engine.generate(LONG)
        assert isinstance(await anext(stream), Token)
        cancelled = time.perf_counter()
        await stream.aclose()
        await collect(engine, ONE_TOKEN)
        return time.perf_counter() - cancelled

    full = time.perf_counter()
    await collect(engine, LONG)
    full = time.perf_counter() - full
    assert await best_of(TRIES, seconds_until_another_is_served) < full / 2


async def test_closing_the_connection_of_a_request_without_streaming_frees_the_engine(
    engine: Engine, http: httpx.AsyncClient, release: Release
) -> None:
    if release.kind == "llama.cpp":
        pytest.skip("It looks once a second whether the client is still there, and has answered by then.")
    if release.kind == EDGE_LLM:
        pytest.skip("Its server answers such a request to its end, whether or not the client is still there.")
    body = {"prompt": PROMPT, "max_tokens": LONG.max_tokens, "temperature": 0, "ignore_eos": True}
    begin = time.perf_counter()
    await http.post("/v1/completions", json=body)
    full = time.perf_counter() - begin

    async def seconds_until_another_is_served() -> float:
        posting = asyncio.create_task(http.post("/v1/completions", json=body))
        await asyncio.sleep(full / 5)
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
        begin = time.perf_counter()
        await collect(engine, ONE_TOKEN)
        return time.perf_counter() - begin

    assert await best_of(TRIES, seconds_until_another_is_served) < full / 2


async def test_cancelling_a_waiting_request_leaves_the_queue(engine: Engine) -> None:
    stream = engine.generate(LONG)
    await anext(stream)
    waiting = asyncio.create_task(collect(engine, LONG))
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    assert (await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=2)))[2].generated_tokens <= 2


async def test_eight_requests_at_once_are_answered_as_one_by_one(engine: Engine) -> None:
    requests = [
        GenerationRequest(prompt=f"{PROMPT} {number}", max_tokens=10 + number, ignore_eos=True)
        for number in range(8)
    ]
    alone = [await collect(engine, request) for request in requests]
    assert await asyncio.gather(*(collect(engine, request) for request in requests)) == alone


async def test_requests_are_served_in_the_order_they_came(engine: Engine) -> None:
    """Each needs more than half of the memory, so that they take turns."""
    order: list[int] = []
    large = GenerationRequest(prompt=PROMPT, max_tokens=CONTEXT_TOKENS // 2, ignore_eos=True)

    async def request(number: int) -> None:
        await collect(engine, large)
        order.append(number)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(request(number)))
        await asyncio.sleep(0.2)  # the engine has read it by then
    await asyncio.gather(*tasks)
    assert order == list(range(4))


async def test_a_full_queue_is_a_busy_error_and_no_request_is_lost(engine: Engine) -> None:
    request = GenerationRequest(prompt=PROMPT, max_tokens=60, ignore_eos=True)
    results = await asyncio.gather(*(collect(engine, request) for _ in range(30)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BusyError)]
    served = [result for result in results if isinstance(result, tuple)]
    assert len(refused) + len(served) == 30
    assert len(served) >= 17
    assert refused
    assert {error.reason for error in refused} == {Reason.REASON_OVERLOADED}


async def test_the_engine_answers_while_it_generates(engine: Engine) -> None:
    stream = engine.generate(LONG)
    await anext(stream)
    assert await engine.healthy()
    assert isinstance(await anext(stream), Token)
    await stream.aclose()
