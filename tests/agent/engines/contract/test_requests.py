"""What every engine refuses, in which words, and that OpenAI's package works against it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from edgewright.errors import InputError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import (
    Engine,
    GenerationRequest,
    ScoreItem,
)
from tests.agent.engines.contract.requests import EDGE_LLM, PROMPT, of_our_worker, sampled
from tests.support.engine_releases import CONTEXT_TOKENS, Release, collect

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_tokens": -1},
        {"stop": [""]},
        {"stop": ["x"] * 9},
        {"prompt": ""},
        {"prompt": None},
        {"prompt": None, "messages": []},
        {"prompt": None, "messages": [{"role": "wizard", "content": "hi"}]},
    ],
)
async def test_a_wrong_request_is_an_input_error_and_the_next_is_served(
    engine: Engine, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        await collect(engine, sampled(**wrong))
    assert (await collect(engine, sampled(max_tokens=1)))[2].generated_tokens == 1


async def test_a_prompt_beyond_the_context_names_both_numbers(engine: Engine, release: Release) -> None:
    with pytest.raises(InputError, match=rf"300.*{CONTEXT_TOKENS}") as caught:
        await collect(engine, GenerationRequest(prompt="!" * 300))
    assert caught.value.reason == Reason.REASON_CONTEXT_EXCEEDED
    if release.kind == EDGE_LLM:
        return  # it scores nothing
    with pytest.raises(InputError) as caught:
        await engine.score([ScoreItem("!" * 200, ["!" * 100])])
    assert caught.value.reason == Reason.REASON_CONTEXT_EXCEEDED


@of_our_worker
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"prompt": "\xff\xfe"}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "x", "temperature": "hot"}', 400),
        (b'{"prompt": "x", "temperature": NaN}', 400),
        (b'{"prompt": "x", "n": 2}', 400),
        (b'{"prompt": "x", "logprobs": 6}', 400),
        (b'{"prompt": [1, 2, 99999]}', 400),
        (b'{"prompt": "x", "model": "another"}', 404),
        (b'{"prompt": "' + b"x" * (9 << 20) + b'"}', 413),
    ],
)
async def test_a_malformed_body_is_refused_in_openai_s_form(
    http: httpx.AsyncClient, body: bytes, status: int
) -> None:
    response = await http.post("/v1/completions", content=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@pytest.mark.parametrize(
    ("route", "fields", "wrong"),
    [
        ("completions", {"prompt": "x", "logprobs": "abc"}, "logprobs"),
        ("completions", {"prompt": "x", "logprobs": "abc", "return_token_ids": True}, "logprobs"),
        ("completions", {"prompt": "x", "logprobs": [1]}, "logprobs"),
        ("chat/completions", {"logprobs": "abc"}, "logprobs"),
        ("chat/completions", {"logprobs": True, "top_logprobs": "x"}, "top_logprobs"),
        ("chat/completions", {"logprobs": True, "top_logprobs": 1.5}, "top_logprobs"),
    ],
)
async def test_log_probabilities_of_a_wrong_type_are_refused_by_name(
    http: httpx.AsyncClient, route: str, fields: dict[str, Any], wrong: str
) -> None:
    prompt = {} if "prompt" in fields else {"messages": [{"role": "user", "content": "x"}]}
    reply = await http.post(f"/v1/{route}", json={**prompt, "max_tokens": 2, **fields})
    assert reply.status_code == 400, reply.text
    assert wrong in reply.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("several", "prompt_tokens", "answers"),
    [({"n": 3}, None, 3), ({"prompt": [[5, 6], [7]]}, 3, 2)],
    ids=["n", "prompts"],
)
async def test_several_answers_are_refused_by_name_or_all_of_their_tokens_are_counted(
    http: httpx.AsyncClient,
    release: Release,
    several: dict[str, Any],
    prompt_tokens: int | None,
    answers: int,
    stream: bool,
) -> None:
    body = {"prompt": "hi", "max_tokens": 5, "ignore_eos": True, **several}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    reply = await http.post("/v1/completions", json=body)
    if release.kind != "vllm":
        assert reply.status_code == 400, reply.text
        message = reply.json()["error"]["message"]
        assert next(iter(several)) in message
        assert release.kind == EDGE_LLM or "This engine" in message
        return
    *_, last = [line for line in reply.text.splitlines() if line and "[DONE]" not in line]
    usage = json.loads(last.removeprefix("data: "))["usage"]
    assert usage["completion_tokens"] == 5 * answers
    assert prompt_tokens in (None, usage["prompt_tokens"])


@pytest.mark.parametrize("name", ["n_predict", "max_new_tokens", "max_output_tokens"])
async def test_no_other_name_for_the_limit_of_tokens_overrides_max_tokens(
    http: httpx.AsyncClient, release: Release, name: str
) -> None:
    body = {"prompt": "hi", "max_tokens": 5, "ignore_eos": True, name: 9}
    reply = await http.post("/v1/completions", json=body)
    if release.kind == "vllm":  # it leaves out what it does not know
        assert reply.json()["usage"]["completion_tokens"] == 5
        return
    assert reply.status_code == 400, reply.text
    assert name in reply.json()["error"]["message"]


@of_our_worker
async def test_a_giant_body_of_unknown_length_is_bounded(http: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * (1 << 16)

    response = await http.post("/v1/completions", content=pieces())
    assert response.status_code == 413


async def test_the_openai_package_works_against_it(client: openai.AsyncOpenAI, release: Release) -> None:
    model = (await client.models.list()).data[0].id
    whole = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=12, seed=1, temperature=0.8
    )
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=12,
        seed=1,
        temperature=0.8,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content
    usage = chunks[-1].usage
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    if release.kind not in ("vllm", EDGE_LLM):
        assert usage.prompt_tokens_details is not None
        read_again = 1 if release.kind == "llama.cpp" else 2  # the others were read for the first answer
        assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - read_again
    completion = await client.completions.create(
        model=model, prompt=PROMPT, max_tokens=3, stop="\0", top_p=0.9
    )
    assert completion.choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match="top_p"):
        await client.completions.create(model=model, prompt=PROMPT, top_p=2)
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="another", prompt=PROMPT)
