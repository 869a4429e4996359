"""A field that changes the answer is obeyed or refused by name; only harmless ones are passed over."""

from __future__ import annotations

import json
import shutil
from typing import Any

import httpx
import pytest

from tests.support.engine_releases import Release, asked_release

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: Any = [{"role": "user", "content": "hi"}]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}>{{ m.content }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}!{% endif %}"
    "{% for d in documents or [] %}[{{ d.text }}]{% endfor %}"
)


@pytest.fixture(scope="module", params=["onnxruntime-genai"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The tiny model with a template that shows everything it gets."""
    tiny = asked_release(request, tmp_path_factory)
    folder = tmp_path_factory.mktemp("template")
    shutil.copytree(tiny.tree, folder / "tree")
    (folder / "tree/tokenizer/chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return Release(tiny.kind, folder / "tree", folder / "run")


async def ask(http: httpx.AsyncClient, route: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    question = {"messages": HELLO} if route.endswith("/chat/completions") else {"prompt": "hi"}
    return await http.post(route, json={**question, "max_tokens": 4, "temperature": 0, **fields})


async def prompt_tokens(http: httpx.AsyncClient, **fields: Any) -> int:
    response = await ask(http, **fields)
    assert response.status_code == 200, response.text
    count: int = response.json()["usage"]["prompt_tokens"]
    return count


async def tokens_of(http: httpx.AsyncClient, text: str) -> int:
    """Tokens of a text as it is."""
    response = await ask(http, "/v1/completions", prompt=text)
    count: int = response.json()["usage"]["prompt_tokens"]
    return count


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"enable_thinking": False}, "enable_thinking"),
        ({"regex": "(yes|no)"}, "regex"),
        ({"lora": [{"id": 0, "scale": 0.5}]}, "lora"),
        ({"whatever_comes_next": 1}, "whatever_comes_next"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"top_k": 5}, "top_k"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"n": 2}, "n"),
        (
            {"max_tokens": 5, "max_completion_tokens": 6},
            "max_completion_tokens is 6 and max_tokens 5; give one",
        ),
        ({"top_logprobs": 2}, "the body: top_logprobs needs logprobs: true."),
        ({"stream_options": {"other": 1}}, "stream_options.other"),
        ({"response_format": {"type": "text", "other": 1}}, "response_format.other"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "x": 1}}}, "json_schema.x"),
        ({"messages": [{"role": "user", "content": "hi", "weight": 0}]}, "messages.0.weight"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]},
            "messages.0.content.0.x",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]}, "tool_calls"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"documents": "text"}, "documents"),
    ],
)
async def test_what_the_engine_does_not_have_is_refused_by_name(
    http: httpx.AsyncClient, fields: dict[str, Any], name: str
) -> None:
    response = await ask(http, **fields)
    assert response.status_code == 400
    assert name in response.json()["error"]["message"]


async def test_a_schema_that_ends_never_is_said_in_words(http: httpx.AsyncClient) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#"}}}
    response = await ask(http, response_format=schema)
    assert response.status_code == 400
    assert "it allows no text at all, or refers to itself without end" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "name", ["echo", "suffix", "best_of", "guided_json", "documents", "chat_template_kwargs"]
)
async def test_so_it_is_for_completions(http: httpx.AsyncClient, name: str) -> None:
    response = await ask(http, "/v1/completions", **{name: [{"text": "x"}]})
    assert response.status_code == 400
    assert name in response.json()["error"]["message"]


async def test_harmless_fields_change_nothing(http: httpx.AsyncClient) -> None:
    harmless: dict[str, Any] = {
        "user": "someone", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "prompt_cache_key": "k",
        "safety_identifier": "s", "prompt_cache_retention": "24h", "parallel_tool_calls": True, "cache_prompt": True,
        "tools": [], "tool_choice": "auto", "logit_bias": {}, "n": 1, "presence_penalty": 0, "top_k": -1,
        "stream_options": None, "modalities": ["text"],
    }  # fmt: skip
    plain, same = await ask(http), await ask(http, **harmless)
    assert same.status_code == 200, same.text
    assert same.json()["choices"] == plain.json()["choices"]


async def test_an_assistant_s_message_comes_back_as_openai_s_client_sends_it(http: httpx.AsyncClient) -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "hm",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
    }
    plain = [*HELLO, {"role": "assistant", "content": "hm"}, *HELLO]
    assert await prompt_tokens(http, messages=[*HELLO, answer, *HELLO]) == await prompt_tokens(
        http, messages=plain
    )


async def test_a_speaker_s_name_reaches_the_template(http: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "hi", "name": "operator"}]
    expected = await tokens_of(http, "<user operator>hi")
    assert await prompt_tokens(http, messages=messages) == expected


async def test_text_parts_are_kept_apart_by_a_new_line(http: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    joined = await ask(http, messages=[{"role": "user", "content": "one\ntwo"}])
    apart = await ask(http, messages=[{"role": "user", "content": parts}])
    assert apart.json()["choices"] == joined.json()["choices"]
    assert apart.json()["usage"]["prompt_tokens"] == joined.json()["usage"]["prompt_tokens"]


async def test_variables_and_documents_reach_the_template(http: httpx.AsyncClient) -> None:
    plain = await prompt_tokens(http)
    assert await prompt_tokens(http, chat_template_kwargs={"enable_thinking": False}) == plain + 1
    assert await prompt_tokens(http, chat_template_kwargs={"enable_thinking": True}) == plain
    assert await prompt_tokens(http, documents=[{"text": "six"}]) == plain + len("[six]")


async def test_a_schema_with_json_object_is_obeyed(http: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["a"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    form = {"type": "json_object", "schema": schema}
    response = await ask(http, response_format=form, max_tokens=60)
    assert json.loads(response.json()["choices"][0]["message"]["content"]) == {"answer": "a"}


async def test_of_several_prompts_one_is_not_picked(http: httpx.AsyncClient) -> None:
    response = await ask(http, "/v1/completions", prompt=["a", "b"])
    assert response.status_code == 400
    assert "one prompt a request" in response.json()["error"]["message"]
