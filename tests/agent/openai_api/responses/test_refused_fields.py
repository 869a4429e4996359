"""Which fields of a request to `/v1/responses` are refused, by which name, and which pass."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.agent.openai_api.responses.asking import QUESTION, post
from tests.support.openai_servers import Board

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "field",
    [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"tools": [{"type": "function", "name": "f", "parameters": {}}]},
        {"tool_choice": "required"},
        {"truncation": "auto"},
        {"prompt": {"id": "pmpt_1"}},
        {"context_management": [{"type": "compaction"}]},
        {"moderation": {"model": "x"}},
        {"top_k": 5},
        {"seed": 1},
        {"frequency_penalty": 0.5},
        {"include": ["nonsense"]},
        {"metadata": {"a": 1}},
        {"temperature": -1},
        {"temperature": "hot"},
        {"top_p": 0},
        {"max_output_tokens": 0},
        {"top_logprobs": 21},
        {"stream": "yes"},
        {"instructions": ["be brief"]},
    ],
)
async def test_a_field_that_is_wrong_or_not_here_is_refused_by_name(
    fake: Board, field: dict[str, Any]
) -> None:
    answer = await post(fake, input=QUESTION, **field)
    error = answer.json()["error"]
    (name,) = field
    assert answer.status_code == 400, answer.text
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{name}"), error["message"]
    assert error["param"].split(".")[0] == name


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, "input.0"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "input.0"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content.0",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": 5}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": "x", "name": "ann"}]}, "input.0.name"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({}, "input"),
        ({"input": "x", "reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
        ({"input": "x", "text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        (
            {"input": "x", "text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
            "text.format.name",
        ),
        (
            {
                "input": "x",
                "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "nonsense"}}},
            },
            "text.format",
        ),
    ],
)
async def test_what_is_wrong_inside_is_named_by_its_path(
    fake: Board, body: dict[str, Any], named: str
) -> None:
    answer = await post(fake, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].startswith(f"{named}:"), answer.text


@pytest.mark.parametrize(
    "neutral",
    [
        {
            "store": False,
            "previous_response_id": None,
            "background": False,
            "tools": [],
            "tool_choice": "auto",
        },
        {"reasoning": {}, "truncation": "disabled", "text": {}, "include": []},
        {"reasoning": {"effort": None, "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
        {"parallel_tool_calls": False, "max_tool_calls": 3, "service_tier": "auto", "safety_identifier": "x"},
        {"prompt_cache_key": "k", "text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"metadata": None, "instructions": None, "temperature": None},
    ],
)
async def test_a_field_at_its_neutral_value_or_that_changes_no_answer_passes(
    fake: Board, neutral: dict[str, Any]
) -> None:
    body = {"temperature": 0, "max_output_tokens": 40, "input": QUESTION}
    answer = await post(fake, **body | neutral)
    assert answer.status_code == 200, answer.text


async def test_what_is_no_json_object_is_refused(fake: Board) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:
        for content in (b"[]", b"nothing", b"\xff"):
            answer = await http.post("/responses", content=content)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
        assert (await http.get("/responses/resp_1")).status_code == 404
        assert (await http.get("/responses")).status_code == 405
    assert asyncio.get_running_loop().is_running()
