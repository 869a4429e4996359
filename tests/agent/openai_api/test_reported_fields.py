"""Fields that other servers were reported to ignore: through the API and a real model, obeyed or refused by name.

llama-cpp-python#1122 and llama.cpp#13160 (fields), autogen#6034 (a speaker's name), unsloth#6480 (parts of a message).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.engine_releases import CONTEXT_TOKENS, Release
from tests.support.openai_servers import Board, board, files_of, serve

# Shows everything that it gets.
TEMPLATE = (
    b"{% for m in messages %}<{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}>{{ m.content }}{% endfor %}"
    b"{% if enable_thinking is defined and not enable_thinking %}!{% endif %}"
    b"{% for d in documents or [] %}[{{ d.text }}]{% endfor %}"
)
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
ONE_ANSWER = {
    "type": "object",
    "properties": {"answer": {"enum": ["a"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Release) -> AsyncIterator[Board]:
    async with board(tmp_path_factory.mktemp("board")) as running:
        files = files_of(tiny_onnx) | {"tokenizer/chat_template.jinja": TEMPLATE}
        limits = {"context_tokens": CONTEXT_TOKENS, "concurrency": 1}
        await serve(running.agent, files, engine={"kind": tiny_onnx.kind}, limits=limits)
        yield running


async def post(running: Board, route: str, body: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url, timeout=60) as http:
        return await http.post(route, json={"temperature": 0, "max_tokens": 4, **body})


async def prompt_tokens(running: Board, route: str, body: dict[str, Any]) -> int:
    """How long the prompt was that the model read, asked for whole and as a stream."""
    answer = await post(running, route, body)
    assert answer.status_code == 200, answer.text
    stream = await post(running, route, {**body, "stream": True, "stream_options": {"include_usage": True}})
    *_, counted, done = [line.removeprefix("data: ") for line in stream.text.splitlines() if line]
    assert done == "[DONE]"
    count: int = answer.json()["usage"]["prompt_tokens"]
    assert json.loads(counted)["usage"]["prompt_tokens"] == count
    return count


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({}, "<user>hi"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "<user>hi!"),
        ({"documents": [{"title": "t", "text": "the gate opens at six"}]}, "<user>hi[the gate opens at six]"),
        ({"messages": [{"role": "user", "content": "hi", "name": "operator"}]}, "<user operator>hi"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
                    }
                ]
            },
            "<user>one\ntwo",
        ),
    ],
    ids=["plain", "thinking switch", "documents", "speaker", "parts"],
)
async def test_what_is_for_the_template_reaches_it(tiny: Board, fields: dict[str, Any], prompt: str) -> None:
    assert await prompt_tokens(tiny, "/chat/completions", HELLO | fields) == (
        await prompt_tokens(tiny, "/completions", {"prompt": prompt})
    )


async def test_parts_of_a_response_s_input_are_kept_apart_too(tiny: Board) -> None:
    parts = [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]
    async with httpx.AsyncClient(base_url=tiny.url, timeout=60) as http:
        answer = await http.post(
            "/responses", json={"input": [{"role": "user", "content": parts}], "max_output_tokens": 2}
        )
    assert answer.json()["usage"]["input_tokens"] == (
        await prompt_tokens(tiny, "/completions", {"prompt": "<user>one\ntwo"})
    )


async def test_a_schema_beside_json_object_is_followed(tiny: Board) -> None:
    form = {"type": "json_object", "schema": ONE_ANSWER}
    answer = await post(tiny, "/chat/completions", {**HELLO, "response_format": form, "max_tokens": 60})
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"answer": "a"}


@pytest.mark.parametrize(
    "field",
    [
        {"enable_thinking": False},
        {"regex": "(yes|no)"},
        {"lora": [{"id": 0, "scale": 0.5}]},
        {"mirostat_tau": 5},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_obeyed_is_refused_by_name(
    tiny: Board, field: dict[str, Any], stream: bool
) -> None:
    answer = await post(tiny, "/chat/completions", HELLO | field | {"stream": stream})
    (name,) = field
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{name}: ")
