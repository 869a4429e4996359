"""`/v1/responses` through the official `openai` package, with a real engine process behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from edgewright_agent.engines import Reply
from edgewright_agent.telemetry.types import EndedRequest
from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve, until
from tests.support.scripted_engine import Script

QUESTION = "Why do plants need sunlight?"
pytestmark = pytest.mark.asyncio(loop_scope="module")
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def post(running: Board, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url) as http:
        return await http.post("/responses", json=body)


async def text_of(running: Board, **body: Any) -> str:
    answer = await post(running, temperature=0, max_output_tokens=40, **body)
    assert answer.status_code == 200, answer.text
    return str(Response.model_validate(answer.json()).output_text)


async def chat_text(running: Board, messages: list[Any]) -> str:
    answer = await running.client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=40
    )
    return str(answer.choices[0].message.content)


async def test_a_response_is_the_answer_of_the_chat_completion(fake: Board) -> None:
    response = await fake.client.responses.create(
        model="tiny", input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=150
    )
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    chat = await fake.client.chat.completions.create(
        model="tiny",
        messages=messages,
        temperature=0,
        max_tokens=150,
    )
    assert response.output_text == chat.choices[0].message.content
    assert response.status == "completed"
    assert (response.model, response.instructions, response.max_output_tokens) == ("tiny", "Be brief.", 150)
    assert response.usage is not None
    assert chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    assert response.usage.total_tokens == chat.usage.total_tokens


async def test_a_response_is_valid_by_the_official_models(fake: Board) -> None:
    answer = await post(fake, input=QUESTION, max_output_tokens=5, metadata={"job": "7"}, user="ann")
    response = Response.model_validate(answer.json(), strict=True)
    assert response.metadata == {"job": "7"}
    assert response.user == "ann"
    assert response.id.startswith("resp_")
    assert response.output[0].id != response.id
    assert response.parallel_tool_calls is True
    assert (response.tool_choice, response.tools, response.truncation) == ("auto", [], "disabled")
    assert answer.json()["store"] is False


async def test_a_stream_has_the_official_sequence_of_events(fake: Board) -> None:
    whole = await fake.client.responses.create(
        model="tiny", input=QUESTION, temperature=0, max_output_tokens=150
    )
    stream = await fake.client.responses.create(
        model="tiny", input=QUESTION, temperature=0, max_output_tokens=150, stream=True
    )
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    opening, closing = kinds[:4], kinds[-4:]
    assert opening == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert closing == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event.model_dump(), strict=True)
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    done = events[-1]
    assert done.type == "response.completed"
    assert deltas == whole.output_text == done.response.output_text
    assert done.response.usage is not None
    assert whole.usage is not None
    assert done.response.usage.output_tokens == whole.usage.output_tokens
    assert {event.item_id for event in events if event.type == "response.output_text.delta"} == {
        done.response.output[0].id
    }


async def test_the_official_accumulator_of_streams_gives_the_final_response(fake: Board) -> None:
    async with fake.client.responses.stream(
        model="tiny", input=QUESTION, temperature=0, max_output_tokens=150
    ) as stream:
        texts = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert texts[-1] == final.output_text
    assert final.status == "completed"


async def test_an_answer_that_is_cut_off_says_so(fake: Board) -> None:
    response = await fake.client.responses.create(
        model="tiny", input=QUESTION, max_output_tokens=3, temperature=0
    )
    assert (response.status, response.output[0].status) == ("incomplete", "incomplete")  # type: ignore[union-attr]
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    stream = await fake.client.responses.create(
        model="tiny", input=QUESTION, max_output_tokens=3, temperature=0, stream=True
    )
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_input_is_text_or_messages_and_earlier_answers_come_back_as_they_were(fake: Board) -> None:
    assert await text_of(fake, input=QUESTION) == await text_of(
        fake, input=[{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
    )
    first = (await post(fake, input=QUESTION, temperature=0, max_output_tokens=10)).json()
    said = Response.model_validate(first).output_text
    again = {"role": "user", "content": "And at night?"}
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": said}, again]
    assert await text_of(fake, input=[{"role": "user", "content": QUESTION}, *first["output"], again]) == (
        await chat_text(fake, turns)
    )


@pytest.mark.parametrize("role", ["system", "developer"])
async def test_instructions_and_roles_reach_the_template(fake: Board, role: str) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    assert await text_of(fake, input=[{**messages[0], "role": role}, messages[1]]) == await chat_text(
        fake, messages
    )
    assert await text_of(fake, instructions="Be brief.", input=QUESTION) == await chat_text(fake, messages)


async def test_log_probabilities_come_whole_and_streamed(fake: Board) -> None:
    asked = {"input": QUESTION, "max_output_tokens": 4, "temperature": 0, "top_logprobs": 2}
    include = ["message.output_text.logprobs"]
    whole = Response.model_validate((await post(fake, include=include, **asked)).json(), strict=True)
    message: Any = whole.output[0]
    entries = message.content[0].logprobs
    assert len(entries) == 4
    assert len(entries[0].top_logprobs) == 2
    stream = await fake.client.responses.create(model="tiny", stream=True, include=include, **asked)  # type: ignore[call-overload]
    streamed = [entry async for event in stream if event.type.endswith("delta") for entry in event.logprobs]
    assert [entry.logprob for entry in streamed] == [entry.logprob for entry in entries]


class Verdict(BaseModel):
    """What the model has to fill in."""

    fits: bool
    size: Literal["small", "large"]


async def test_text_follows_a_json_schema(fake: Board) -> None:
    parsed = await fake.client.responses.parse(
        model="tiny", input=QUESTION, text_format=Verdict, temperature=1
    )
    assert isinstance(parsed.output_parsed, Verdict)
    answer = await post(fake, input=QUESTION, text={"format": {"type": "json_object"}}, max_output_tokens=200)
    assert answer.status_code == 200
    assert answer.json()["text"]["format"] == {"type": "json_object"}


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


async def test_errors_of_the_engine_have_their_own_status(fake: Board) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await fake.client.responses.create(model="gpt-5", input=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="256") as long:
        await fake.client.responses.create(model="tiny", input="x" * 300)
    assert long.value.code == "context_length_exceeded"


async def test_a_response_is_measured_like_a_chat(fake: Board) -> None:
    ended: list[EndedRequest] = []
    fake.agent.telemetry.subscribe(ended.append)
    stream = await fake.client.responses.create(
        model="tiny", input=QUESTION, max_output_tokens=3, temperature=0, stream=True
    )
    assert [event async for event in stream]
    await fake.client.responses.create(model="tiny", input=QUESTION, max_output_tokens=3, temperature=0)
    await until(lambda: len(ended) == 2, 5)
    streamed, whole = ended
    assert streamed.operation == whole.operation == "chat"
    assert streamed.generated_tokens == whole.generated_tokens == 3
    assert streamed.finish_reason == whole.finish_reason == "length"
    assert streamed.time_to_first_token_seconds is not None
    assert whole.time_to_first_token_seconds is None


async def test_leaving_frees_the_engine(fake: Board) -> None:
    stream = await fake.client.responses.create(model="tiny", input=QUESTION, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await until(lambda: not fake.agent.telemetry.serving().requests_in_flight, 5)
    assert await text_of(fake, input=QUESTION)


async def test_an_engine_that_dies_ends_the_stream_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
    ended: list[EndedRequest] = []
    async with board(tmp_path) as running:
        await serve(running.agent, {**TREE, "engine/fake.json": b'{"words": 40, "token_seconds": 0.02}'})
        running.agent.telemetry.subscribe(ended.append)
        stream = await running.client.responses.create(
            model="tiny", input=QUESTION, stream=True, temperature=0
        )
        lines = stream.response.aiter_lines()
        while "output_text.delta" not in await anext(lines):
            pass
        os.kill(running.agent.deployer.serving().engine.pid, signal.SIGKILL)
        events = [
            json.loads(line.removeprefix("data: ")) async for line in lines if line.startswith("data: ")
        ]
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert events[-1]["response"]["output"][0]["content"][0]["text"]
    EVENTS.validate_python(events[-1], strict=True)
    assert [request.finish_reason for request in ended] == ["error"]


async def test_the_official_client_raises_what_went_wrong_in_a_stream(
    fake: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        chunk = {"model": "tiny", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
        yield f"data: {json.dumps(chunk)}\n\n".encode()
        yield b'data: {"error": {"message": "it broke"}}\n\n'

    @contextlib.asynccontextmanager
    async def breaking(method: str, route: str, body: bytes = b"") -> AsyncIterator[Reply]:
        yield Reply(200, {"content-type": "text/event-stream"}, pieces())

    monkeypatch.setattr(fake.agent.deployer.serving().engine, "relay", breaking)
    stream = await fake.client.responses.create(model="tiny", input=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="it broke"):
        async for _ in stream:
            pass


async def test_an_agent_that_fails_says_so_in_openais_shape(
    fake: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(method: str, route: str, body: bytes = b"") -> Any:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(fake.agent.deployer.serving().engine, "relay", failing)
    async with httpx.AsyncClient(base_url=fake.url) as http:
        chat = await http.post("/chat/completions", json={"messages": []})
    for answer in (chat, await post(fake, input=QUESTION)):
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        assert "nobody foresaw" not in answer.text  # that is for the log


async def test_without_a_release_the_answer_is_503(tmp_path: Path) -> None:
    async with board(tmp_path, script=Script()) as empty:
        with pytest.raises(openai.InternalServerError, match="No release is being served") as error:
            await empty.client.responses.create(model="tiny", input=QUESTION)
        assert error.value.code == "no_active_release"


async def test_what_is_no_json_object_is_refused(fake: Board) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:
        for content in (b"[]", b"nothing", b"\xff"):
            answer = await http.post("/responses", content=content)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
        assert (await http.get("/responses/resp_1")).status_code == 404
        assert (await http.get("/responses")).status_code == 405
    assert asyncio.get_running_loop().is_running()
