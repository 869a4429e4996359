"""Fields of completions: obeyed, ignored because no answer depends on them, or refused by name."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.support.openai_servers import (
    MESSAGES,
    Board,
    chat_text,
    still_serves,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_unknown_model_is_not_found(fake: Board) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        await fake.client.completions.create(model="gpt-5", prompt="hello")
    assert error.value.code == "model_not_found"
    assert "'gpt-5'" in str(error.value)
    assert "'tiny'" in str(error.value)


async def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(fake: Board) -> None:
    with pytest.raises(openai.BadRequestError, match=r"300.*256") as error:
        await fake.client.completions.create(model="tiny", prompt="x" * 300)
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.5},
        {"max_tokens": 0},
        {"stop": [""]},
        {"stop": ["s"] * 9},
        {"n": 3},
        {"seed": "seven"},
        {"stream": "yes"},
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        {"stream": True, "stream_options": 3},
        {"logit_bias": {"5": 100}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}},
    ],
)
async def test_a_wrong_value_is_refused_by_name(fake: Board, options: dict[str, Any]) -> None:
    body = {"model": "tiny", "messages": MESSAGES, **options}
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.post("/chat/completions", content=json.dumps(body))  # NaN too
    error = answer.json()["error"]
    assert answer.status_code == 400, answer.text
    assert error["type"] == "invalid_request_error"
    assert next(reversed(options)).split("_")[0] in error["message"]
    await still_serves(fake)


@pytest.mark.parametrize(
    "options",
    [
        {"functions": [{"name": "f", "parameters": {}}]},
        {"function_call": {"name": "f"}},
        {"tool_choice": "required"},
        {"reasoning_effort": "high"},
        {"modalities": ["text", "audio"]},
        {"top_k": 40},
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"min_tokens": 5},
        {"stop_token_ids": [7]},
        {"guided_json": {"type": "object"}},
        {"grammar": "root ::= [a-z]"},
        {"presence_penalty": 0.5},
        {"n": 3},
        {"prediction": {"type": "content", "content": "x"}},
        {"add_special_tokens": False},
        {"thinking_token_budget": 9},
        {"n_predict": 3},
        {"samplers": ["top_k"]},
        {"dry_multiplier": 0.8},
        {"xtc_probability": 0.5},
        {"dynatemp_range": 0.5},
        {"top_n_sigma": 1.0},
    ],
)
async def test_a_field_that_would_change_the_answer_and_is_not_there_is_refused_by_name(
    fake: Board, options: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.post("/chat/completions", json={"messages": MESSAGES, **options})
    assert answer.status_code == 400
    (name,) = options
    assert answer.json()["error"]["message"].startswith(f"{name}: This engine does not have it; leave it out")


@pytest.mark.parametrize(
    "neutral",
    [
        {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 0, "stop_token_ids": []},
        {"top_k": -1, "guided_json": None, "skip_special_tokens": True},
        {
            "modalities": ["text"],
            "reasoning_effort": None,
            "functions": None,
            "tools": [],
            "tool_choice": "none",
        },
        {"logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "n": 1},
        {
            "user": "me",
            "metadata": {"a": "b"},
            "store": False,
            "service_tier": "auto",
            "parallel_tool_calls": True,
        },
    ],
)
async def test_a_field_at_its_neutral_value_or_that_changes_no_answer_passes(
    fake: Board, neutral: dict[str, Any]
) -> None:
    assert await chat_text(fake, MESSAGES, **neutral) == await chat_text(fake, MESSAGES)


@pytest.mark.parametrize("field", [{"audio": {"id": "1"}}, {"tool_calls": [{"id": "1"}]}])
async def test_a_field_of_a_message_that_templates_do_not_know_is_refused_by_name(
    fake: Board, field: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", "content": "hi", **field}]}
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.post("/chat/completions", json=body)
    assert answer.status_code == 400
    (name,) = field
    assert answer.json()["error"]["message"].startswith(f"messages.0.{name}: This engine does not have it")
