"""What every engine promises of the text that it generates."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import httpx
import openai
import pytest

from edgewright_agent.engines import (
    Engine,
    GenerationRequest,
    Token,
)
from edgewright_agent.engines.protocol.requests import UNTOLD_ID
from edgewright_agent.engines.served import ServedEngine
from tests.agent.engines.contract.requests import EDGE_LLM, PROMPT, of_our_worker, sampled
from tests.support.engine_releases import CONTEXT_TOKENS, Release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_exact_request_brings_the_same_tokens(engine: Engine) -> None:
    text, tokens, finish = await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=20))
    assert UNTOLD_ID not in tokens
    request = GenerationRequest(prompt=PROMPT, max_tokens=20, exact=True)
    assert await collect(engine, request) == (text, tokens, finish)


async def test_each_token_is_an_item_and_a_finish_with_counts_is_the_last(engine: Engine) -> None:
    _, tokens, finish = await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=9, ignore_eos=True))
    assert len(tokens) == 9
    assert finish.reason == "length"
    assert finish.generated_tokens == 9
    assert finish.prompt_tokens > 0


async def test_the_streamed_text_is_the_text_without_streaming(
    engine: Engine, http: httpx.AsyncClient, release: Release
) -> None:
    text, tokens, finish = await collect(engine, sampled())
    body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 1, "seed": 7}
    extensions = {"ignore_eos": True, "return_token_ids": True}
    answer = (await http.post("/v1/completions", json=body | extensions)).json()
    assert answer["choices"][0]["text"] == text
    ids = answer["choices"][0]["token_ids"]
    # llama.cpp's stream says nothing of a token that ends inside a character, which the whole answer names.
    assert [exact if told != UNTOLD_ID else told for exact, told in zip(ids, tokens, strict=True)] == tokens
    usage = {name: count for name, count in answer["usage"].items() if count is not None}
    cached = usage.pop("prompt_tokens_details", None)
    assert usage == {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": 40,
        "total_tokens": finish.prompt_tokens + 40,
    }
    if release.kind not in (
        "vllm",
        EDGE_LLM,
    ):  # vLLM reuses whole blocks of 128 tokens; neither says anything
        read_again = 1 if release.kind == "llama.cpp" else 2
        assert cached == {"cached_tokens": finish.prompt_tokens - read_again}


async def test_greedy_generation_repeats(engine: Engine) -> None:
    request = GenerationRequest(prompt=PROMPT, max_tokens=20, ignore_eos=True)
    assert await collect(engine, request) == await collect(engine, request)


async def test_a_seed_repeats_its_text_and_another_seed_does_not(engine: Engine) -> None:
    first, again, other = [await collect(engine, sampled(seed=seed)) for seed in (7, 7, 2**63 + 8)]
    assert first == again
    assert first[1] != other[1]


async def test_without_a_seed_texts_differ(engine: Engine) -> None:
    first, second = [await collect(engine, sampled(seed=None)) for _ in range(2)]
    assert first[1] != second[1]


async def test_without_max_tokens_the_context_is_filled(engine: Engine) -> None:
    _, tokens, finish = await collect(engine, GenerationRequest(prompt=PROMPT, max_tokens=0, ignore_eos=True))
    assert len(tokens) + finish.prompt_tokens == CONTEXT_TOKENS
    assert finish.reason == "length"


@pytest.mark.parametrize(("start", "length"), [(0, 1), (5, 3), (11, 8)])
async def test_a_stop_string_ends_the_text_before_it(engine: Engine, start: int, length: int) -> None:
    whole, _, _ = await collect(engine, sampled())
    # llama.cpp looks for it in the bytes, which for the tiny model are often no text.
    clean = [at for at in range(len(whole) - length) if "\ufffd" not in whole[at : at + length]]
    start = min(clean, key=lambda at: abs(at - start))
    stop = whole[start : start + length]
    text, tokens, finish = await collect(engine, sampled(stop=["\0never", stop]))
    assert text == whole.partition(stop)[0]
    assert finish.reason == "stop"
    assert finish.generated_tokens == len(tokens) < 40


async def test_text_held_back_for_a_stop_string_comes_in_the_end(engine: Engine) -> None:
    whole, _, _ = await collect(engine, sampled())
    text, _, finish = await collect(engine, sampled(stop=[whole[-5:] + "\0never"]))
    assert (text, finish.reason) == (whole, "length")


async def test_the_end_of_sequence_token_ends_the_text(engine: Engine, release: Release) -> None:
    eos = 256 if release.kind == "fake" else 2
    request = GenerationRequest(prompt=PROMPT, max_tokens=200, temperature=1.0, seed=3)
    _, on, _ = await collect(engine, GenerationRequest(**{**vars(request), "ignore_eos": True}))
    _, tokens, finish = await collect(engine, request)
    assert finish.reason == "stop"
    if release.kind in (
        "llama.cpp",
        EDGE_LLM,
    ):  # they go on by never choosing an end, so that the texts differ
        assert tokens[-1] == eos
        assert len(on) == 200
    else:
        assert tokens == on[: on.index(eos) + 1]


async def test_messages_go_through_the_chat_template(engine: Engine) -> None:
    messages = [{"role": "user", "content": "hi"}]
    text, _, finish = await collect(engine, GenerationRequest(messages=messages, max_tokens=16))
    plain, _, plain_finish = await collect(engine, GenerationRequest(prompt="hi", max_tokens=16))
    assert finish.prompt_tokens > plain_finish.prompt_tokens
    assert text != plain


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_answer_follows_the_json_schema_it_is_asked_for(
    client: openai.AsyncOpenAI, release: Release, streaming: bool
) -> None:
    if release.kind in ("fake", EDGE_LLM):
        pytest.skip("It writes what its script says, or letters.")
    schema = {
        "type": "object",
        "properties": {"on": {"type": "boolean"}},
        "required": ["on"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "switch", "schema": schema, "strict": True}}
    messages: Any = [{"role": "user", "content": "hi"}]
    request: Any = {"model": (await client.models.list()).data[0].id, "messages": messages, "max_tokens": 60}
    options: Any = {"temperature": 0, "response_format": form}
    if streaming:
        stream: Any = await client.chat.completions.create(**request, **options, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    else:
        answer: Any = await client.chat.completions.create(**request, **options)
        text = answer.choices[0].message.content
    assert json.loads(text) in ({"on": True}, {"on": False})


@of_our_worker
async def test_each_token_says_when_it_was_computed_though_fast_ones_travel_together(
    engine: ServedEngine,
) -> None:
    request = GenerationRequest(prompt=PROMPT, max_tokens=100, ignore_eos=True)
    began, arrivals, made = time.monotonic(), [], []
    async for event in engine.generate(request):
        if isinstance(event, Token):
            assert event.at_seconds is not None
            made.append(event.at_seconds)
            arrivals.append(time.monotonic())
    assert began < made[0]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))
    assert all(computed < arrived for computed, arrived in zip(made, arrivals, strict=True))
