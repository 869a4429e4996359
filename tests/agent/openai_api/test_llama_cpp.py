"""The OpenAI-compatible API on a board that serves with llama.cpp."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.support.engine_releases import Release, tiny_llama_release
from tests.support.openai_servers import MESSAGES, TO_THE_END, Board, board, files_of, idle, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")
SWITCH = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llama(tiny_onnx: Release, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Board]:
    release = tiny_llama_release(tiny_onnx, tmp_path_factory.mktemp("release"))
    memory = {
        "budget_bytes": 2**30, "predicted_peak_bytes": 2**28, "error_bytes": 2**20, "calibrated_on": "tests",
    }  # fmt: skip
    async with board(tmp_path_factory.mktemp("board")) as running:
        await serve(running.agent, files_of(release), engine={"kind": "llama.cpp"}, memory=memory)
        yield running


@pytest.mark.parametrize("chat", [True, False])
async def test_a_stream_is_measured_token_by_token(llama: Board, chat: bool) -> None:
    before = await idle(llama)
    options: Any = {
        "model": "tiny",
        "max_tokens": 11,
        "temperature": 0,
        "stream": True,
        "extra_body": TO_THE_END,
    }
    if chat:
        chats: Any = await llama.client.chat.completions.create(messages=MESSAGES, **options)
        assert [chunk async for chunk in chats]
    else:
        texts: Any = await llama.client.completions.create(prompt="on the other hand", **options)
        assert [chunk async for chunk in texts]
    after = await idle(llama)
    assert after.requests == before.requests + 1
    assert after.generated_tokens == before.generated_tokens + 11
    assert after.prompt_tokens > before.prompt_tokens
    assert after.inter_token_latency_seconds.count == before.inter_token_latency_seconds.count + 10


@pytest.mark.parametrize("chat", [True, False])
async def test_the_progress_of_a_prompt_is_no_token(llama: Board, chat: bool) -> None:
    before = await idle(llama)
    prompt = {"messages": MESSAGES} if chat else {"prompt": "on the other hand " * 4}
    body = {**prompt, "max_tokens": 5, "stream": True, "return_progress": True, **TO_THE_END}
    async with httpx.AsyncClient(base_url=llama.url) as http:
        answer = await http.post("/chat/completions" if chat else "/completions", json=body)
    assert "prompt_progress" in answer.text
    after = await idle(llama)
    assert after.generated_tokens == before.generated_tokens + 5
    assert after.inter_token_latency_seconds.count == before.inter_token_latency_seconds.count + 4


async def test_the_model_is_listed_under_its_name(llama: Board) -> None:
    assert [model.id for model in (await llama.client.models.list()).data] == ["tiny"]
    assert (await llama.client.models.retrieve("tiny")).id == "tiny"


async def test_a_response_is_the_answer_of_the_chat_completion(llama: Board) -> None:
    chat = await llama.client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=20, temperature=0
    )
    response = await llama.client.responses.create(
        model="tiny", input=str(MESSAGES[0]["content"]), max_output_tokens=20, temperature=0
    )
    assert response.output_text == chat.choices[0].message.content
    assert response.usage is not None
    assert chat.usage is not None
    assert response.usage.output_tokens == chat.usage.completion_tokens


async def test_a_response_s_stream_gives_the_same_text(llama: Board) -> None:
    options: Any = {"model": "tiny", "input": "hi", "max_output_tokens": 20, "temperature": 0}
    whole = await llama.client.responses.create(**options)
    stream = await llama.client.responses.create(**options, stream=True)
    pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
    assert "".join(pieces) == whole.output_text


async def test_a_response_follows_a_json_schema(llama: Board) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "switch", "schema": SWITCH, "strict": True}}
    response = await llama.client.responses.create(
        model="tiny", input="hi", text=form, max_output_tokens=60, temperature=0
    )
    assert json.loads(response.output_text) in ({"on": True}, {"on": False})


@pytest.mark.parametrize(
    ("fields", "error", "why"),
    [
        ({"model": "gpt-5"}, openai.NotFoundError, "gpt-5"),
        ({"max_tokens": 1000}, openai.BadRequestError, "context holds 256"),
        ({"top_p": 2}, openai.BadRequestError, "top_p"),
        ({"stop": ["a"] * 9}, openai.BadRequestError, "stop"),
        ({"messages": [{"role": "user"}]}, openai.BadRequestError, "content"),
    ],
)
async def test_what_is_wrong_is_named(
    llama: Board, fields: dict[str, Any], error: type[openai.APIStatusError], why: str
) -> None:
    body: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 3, **fields}
    with pytest.raises(error, match=why) as caught:
        await llama.client.chat.completions.create(**body)
    assert caught.value.code in ("model_not_found", "context_length_exceeded", "invalid_value"), (
        caught.value.code
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_are_refused_and_none_of_them_counts(llama: Board, stream: bool) -> None:
    """The server would answer them all, and count the tokens of the first."""
    before = await idle(llama)
    with pytest.raises(openai.BadRequestError, match="takes one prompt a request"):
        await llama.client.completions.create(model="tiny", prompt=["on the", "other hand"], stream=stream)
    after = await idle(llama)
    assert after.requests_rejected == before.requests_rejected + 1
    assert after.generated_tokens == before.generated_tokens
    assert after.prompt_tokens == before.prompt_tokens


async def test_only_openai_s_routes_are_open(llama: Board) -> None:
    async with httpx.AsyncClient(base_url=llama.url.removesuffix("/v1")) as http:
        for route in ("/props", "/slots", "/completion", "/v1/messages"):
            assert (await http.get(route)).status_code in (404, 405)
