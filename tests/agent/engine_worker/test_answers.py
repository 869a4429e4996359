"""What the worker's answers say beside the text: log-probabilities, JSON of a schema, and how requests share it."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio
from pydantic import BaseModel, ConfigDict

from edgewright_agent.engines import GenerationRequest, Token
from edgewright_agent.engines.served import ServedEngine
from tests.support.engine_releases import Release, asked_release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "on the other hand"
ROUNDS_MAX = 20  # until eight clients are seen to overlap
MESSAGES: Any = [{"role": "user", "content": "hi"}]


class Cat(BaseModel):
    """What the schema in the tests describes."""

    model_config = ConfigDict(strict=True, extra="forbid")

    wild: bool
    legs: Literal[3, 4]
    tail: None


@pytest.fixture(scope="module", params=["fake", "onnxruntime-genai"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return asked_release(request, tmp_path_factory, token_seconds=0.002)


@pytest_asyncio.fixture(loop_scope="module")
async def model(client: Any) -> str:
    name: str = (await client.models.list()).data[0].id
    return name


async def test_chat_logprobs_come_in_openai_s_shape_and_streamed_they_are_the_same(
    client: Any, model: str
) -> None:
    asked = {
        "model": model,
        "messages": MESSAGES,
        "max_tokens": 6,
        "seed": 5,
        "logprobs": True,
        "top_logprobs": 3,
    }
    whole = (await client.chat.completions.create(**asked)).choices[0]
    content = whole.logprobs.content
    assert 1 <= len(content) <= 6
    for entry in content:
        assert entry.logprob <= 0
        assert bytes(entry.bytes).decode(errors="replace") in (entry.token, "�")
        assert len(entry.top_logprobs) == 3
        values = [other.logprob for other in entry.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert entry.logprob <= values[0]
    stream = await client.chat.completions.create(**asked, stream=True)
    streamed = [chunk.choices[0].logprobs async for chunk in stream if chunk.choices]
    assert [entry for said in streamed if said is not None for entry in said.content] == content


async def test_completion_logprobs_come_in_openai_s_shape_and_streamed_they_are_the_same(
    client: Any, model: str
) -> None:
    asked = {"model": model, "prompt": PROMPT, "max_tokens": 6, "seed": 5, "logprobs": 2}
    whole = (await client.completions.create(**asked)).choices[0]
    said = whole.logprobs
    assert len(said.tokens) == len(said.token_logprobs) == len(said.top_logprobs) == len(said.text_offset)
    for token, logprob, top in zip(said.tokens, said.token_logprobs, said.top_logprobs, strict=True):
        assert top[token] == logprob
        assert 2 <= len(top) <= 3
    assert said.text_offset[0] == 0
    stream = await client.completions.create(**asked, stream=True)
    parts = [chunk.choices[0].logprobs async for chunk in stream]
    assert [token for part in parts if part for token in part.tokens] == said.tokens
    assert [value for part in parts if part for value in part.token_logprobs] == said.token_logprobs
    assert [offset for part in parts if part for offset in part.text_offset] == said.text_offset


async def test_logprobs_are_of_the_whole_distribution_whatever_is_drawn_from_it(
    client: Any, model: str
) -> None:
    asked = {"model": model, "messages": MESSAGES, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
    greedy = (await client.chat.completions.create(**asked, temperature=0)).choices[0].logprobs.content[0]
    hot = (await client.chat.completions.create(**asked, temperature=2, top_p=0.5)).choices[0]
    assert hot.logprobs is not None
    assert hot.logprobs.content[0].top_logprobs == greedy.top_logprobs
    assert greedy.top_logprobs[0].logprob == greedy.logprob
    assert 0.1 < sum(math.exp(other.logprob) for other in greedy.top_logprobs) <= 1 + 1e-6


async def test_logprobs_agree_with_scores(engine: ServedEngine, http: httpx.AsyncClient) -> None:
    body = {"prompt": "the cat", "max_tokens": 1, "temperature": 0, "logprobs": 0}
    choice = (await http.post("/v1/completions", json=body)).json()["choices"][0]
    items = [{"context": "the cat", "continuations": [choice["text"]]}]
    scored = (await http.post("/v1/score", json={"items": items})).json()["items"][0][0]
    assert scored["tokens"] == 1
    assert choice["logprobs"]["token_logprobs"][0] == pytest.approx(scored["log_likelihood"], abs=1e-5)


async def test_without_being_asked_an_answer_has_no_logprobs(client: Any, model: str) -> None:
    answer = await client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].logprobs is None


async def test_an_answer_follows_its_json_schema(client: Any, model: str) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "cat", "schema": Cat.model_json_schema(), "strict": True},
    }
    for seed in range(4):
        answer = await client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=120, seed=seed, temperature=1, response_format=form
        )
        assert answer.choices[0].finish_reason == "stop"
        Cat.model_validate_json(answer.choices[0].message.content)


async def test_a_json_object_is_one_or_says_that_it_was_cut_off(client: Any, model: str) -> None:
    asked: dict[str, Any] = {
        "model": model, "messages": MESSAGES, "temperature": 1, "response_format": {"type": "json_object"},
    }  # fmt: skip
    for seed in range(4):
        choice = (await client.chat.completions.create(**asked, max_tokens=40, seed=seed)).choices[0]
        assert choice.message.content.startswith("{")
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length"
    cut = (await client.chat.completions.create(**asked, max_tokens=1, seed=0)).choices[0]
    assert (cut.message.content[0], cut.finish_reason) == ("{", "length")


def nested(depth: int) -> dict[str, Any]:
    """A schema of objects in objects."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "wizard"}}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/nowhere"}}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string", "pattern": "("}}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": [1]}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": nested(64)}},
        {"type": "json_object", "json_schema": {"name": "a", "schema": {}}},
        {"type": "yaml"},
    ],
)
async def test_a_wrong_response_format_is_refused_in_a_sentence(
    http: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    body = {"messages": MESSAGES, "max_tokens": 4, "response_format": wrong}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["message"].startswith("response_format")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "wrong", [{"top_logprobs": 21, "logprobs": True}, {"top_logprobs": 2}, {"logprobs": 3}]
)
async def test_wrong_logprobs_are_refused(http: httpx.AsyncClient, wrong: dict[str, Any]) -> None:
    response = await http.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 2} | wrong)
    assert response.status_code == 400
    assert "logprobs" in response.json()["error"]["message"]


async def test_eight_clients_are_served_together(engine: ServedEngine) -> None:
    request = GenerationRequest(prompt="the", max_tokens=20, ignore_eos=True)
    alone = await collect(engine, request)

    async def one() -> tuple[float, float, list[int]]:
        arrivals: list[tuple[float, int]] = []
        async for item in engine.generate(request):
            if isinstance(item, Token):
                arrivals.append((time.perf_counter(), item.id))
        return arrivals[0][0], arrivals[-1][0], [token for _, token in arrivals]

    overlapped = False
    for _ in range(ROUNDS_MAX):
        answers = sorted(await asyncio.gather(*(one() for _ in range(8))))
        assert [tokens for _, _, tokens in answers] == [alone[1]] * 8
        # A tiny model may give each client all its tokens before the next has connected; not in every round.
        overlapped = any(later < end for (_, end, _), (later, _, _) in itertools.pairwise(answers))
        if overlapped:
            break
    assert overlapped


async def test_an_engine_says_how_many_requests_of_a_length_share_its_steps(http: httpx.AsyncClient) -> None:
    said = {
        tokens: (await http.get(f"/v1/together/{tokens}")).json()["requests"]
        for tokens in (1, 32, 33, 64, 128, 129, 256)
    }
    assert said == {1: 8, 32: 8, 33: 4, 64: 4, 128: 2, 129: 1, 256: 1}


async def test_a_known_prompt_is_counted_as_cached(http: httpx.AsyncClient) -> None:
    body = {"prompt": "the other cat and the other hat", "max_tokens": 2, "temperature": 0}
    first, again = [(await http.post("/v1/completions", json=body)).json() for _ in range(2)]
    assert again["choices"] == first["choices"]
    usage = again["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 2


async def test_a_client_that_only_half_closes_is_cancelled_and_the_next_is_served(
    engine: ServedEngine,
) -> None:
    body = json.dumps({"prompt": "the", "max_tokens": 200, "stream": True, "ignore_eos": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: e\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_unix_connection(str(engine.socket))
    writer.write(head + body)
    await reader.readuntil(b"data: ")
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert (await collect(engine, GenerationRequest(prompt="the", max_tokens=2)))[2].generated_tokens == 2
