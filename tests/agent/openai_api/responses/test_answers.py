"""`/v1/responses` through the official `openai` package, with a real engine process behind it."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from edgewright_agent.telemetry.types import EndedRequest
from tests.agent.openai_api.responses.asking import EVENTS, QUESTION, post, text_of
from tests.support.openai_servers import Board, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
