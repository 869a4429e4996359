"""What only a real model shows, with each real engine: log-probabilities, JSON of a schema, chat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.support.engine_releases import CONTEXT_TOKENS, Release, require_vllm, tiny_vllm_release
from tests.support.openai_servers import Board, board, files_of, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "the cat"}]


class Verdict(BaseModel):
    """What the model has to fill in."""

    fits: bool
    size: Literal["small", "large"]


@pytest.fixture(scope="module", params=["onnxruntime-genai", pytest.param("vllm", marks=pytest.mark.vllm)])
def release(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Release
) -> Release:
    if request.param == "onnxruntime-genai":
        return tiny_onnx
    require_vllm()
    return tiny_vllm_release(tiny_onnx, tmp_path_factory.mktemp("vllm"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiny(tmp_path_factory: pytest.TempPathFactory, release: Release) -> AsyncIterator[Board]:
    async with board(tmp_path_factory.mktemp("board")) as running:
        limits = {"context_tokens": CONTEXT_TOKENS, "concurrency": release.concurrency}
        await serve(running.agent, files_of(release), engine={"kind": release.kind}, limits=limits)
        yield running


async def test_a_stream_of_either_engine_is_measured_token_by_token(tiny: Board) -> None:
    before = tiny.agent.telemetry.serving()
    stream = await tiny.client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=9, stream=True, extra_body={"ignore_eos": True}
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)  # the counts were not asked for
    while (after := tiny.agent.telemetry.serving()).requests_in_flight:
        await asyncio.sleep(0.005)
    assert after.generated_tokens == before.generated_tokens + 9
    assert after.time_to_first_token_seconds.count == before.time_to_first_token_seconds.count + 1
    assert after.inter_token_latency_seconds.count == before.inter_token_latency_seconds.count + 8


async def test_log_probabilities_come_whole_and_streamed_and_are_the_same(tiny: Board) -> None:
    asked = {"temperature": 0.0, "max_tokens": 6, "logprobs": True, "top_logprobs": 3}
    chat = tiny.client.chat.completions
    whole = await chat.create(model="tiny", messages=MESSAGES, **asked)  # type: ignore[call-overload]
    stream = await chat.create(model="tiny", messages=MESSAGES, stream=True, **asked)  # type: ignore[call-overload]
    content = whole.choices[0].logprobs.content
    streamed = [entry async for chunk in stream for entry in _logprobs_of(chunk)]
    assert len(content) == whole.usage.completion_tokens
    assert [entry.token for entry in streamed] == [entry.token for entry in content]
    assert [entry.logprob for entry in streamed] == pytest.approx(
        [entry.logprob for entry in content], abs=1e-4
    )
    for entry in content:
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0
        assert len(entry.top_logprobs) == 3


def _logprobs_of(chunk: Any) -> list[Any]:
    logprobs = chunk.choices[0].logprobs
    return logprobs.content if logprobs else []


async def test_an_answer_follows_its_json_schema(tiny: Board) -> None:
    answer = await tiny.client.chat.completions.parse(
        model="tiny", messages=MESSAGES, response_format=Verdict, temperature=1.0, seed=3
    )
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Verdict)
    assert Verdict.model_validate(json.loads(answer.choices[0].message.content or "")) == parsed


async def test_greedy_answers_repeat_and_seeds_make_draws_repeat(tiny: Board) -> None:
    async def text(**options: float) -> str:
        answer = await tiny.client.completions.create(
            model="tiny", prompt="the cat", max_tokens=12, extra_body={"ignore_eos": True, **options}
        )
        return answer.choices[0].text

    assert await text(temperature=0) == await text(temperature=0)
    assert await text(temperature=2, seed=5) == await text(temperature=2, seed=5)
    assert await text(temperature=2, seed=5) != await text(temperature=2, seed=6)


async def test_the_chat_template_is_the_artifacts(tiny: Board, tiny_onnx: Release) -> None:
    reference = json.loads((tiny_onnx.tree / "reference.json").read_text(encoding="utf-8"))
    whole = await tiny.client.chat.completions.create(
        model="tiny", messages=reference["messages"], temperature=0, max_tokens=5
    )
    typed = await tiny.client.completions.create(
        model="tiny", prompt=reference["chat"], temperature=0, max_tokens=5
    )
    assert whole.choices[0].message.content == typed.choices[0].text
