"""Chat completions and completions through the official `openai` package: text, streams, stops and seeds."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.openai_servers import (
    MESSAGES,
    Board,
    chat_text,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_chat_comes_whole_or_streamed_and_is_the_same(fake: Board) -> None:
    whole = await fake.client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=0)
    choice = whole.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "stop"
    stream = await fake.client.chat.completions.create(
        model="tiny", messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    *spoken, counted = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == choice.message.content
    assert spoken[0].choices[0].delta.role == "assistant"
    assert spoken[-1].choices[0].finish_reason == "stop"
    assert counted.choices == []
    assert counted.usage is not None
    assert whole.usage is not None
    assert counted.usage.completion_tokens == whole.usage.completion_tokens == len(spoken) - 1
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


async def test_a_completion_comes_whole_or_streamed_and_is_the_same(fake: Board) -> None:
    whole = await fake.client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=20)
    stream = await fake.client.completions.create(
        model="tiny", prompt="hello", temperature=0, max_tokens=20, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (20, "length")


async def test_counts_come_in_a_stream_only_if_asked_for(fake: Board) -> None:
    stream = await fake.client.completions.create(model="tiny", prompt="hello", stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stop_string_ends_the_text_before_it(fake: Board) -> None:
    async def text(**options: Any) -> tuple[str, str]:
        answer = await fake.client.completions.create(
            model="tiny", prompt="hello", temperature=0, max_tokens=60, **options
        )
        return answer.choices[0].text, answer.choices[0].finish_reason

    whole, _ = await text()
    words = whole.split()
    stop = words[2]
    assert await text(stop=[stop, "never in it"]) == (whole[: whole.index(stop)], "stop")


async def test_a_seed_makes_a_draw_repeatable(fake: Board) -> None:
    async def drawn(seed: int) -> str:
        answer = await fake.client.chat.completions.create(
            model="tiny", messages=MESSAGES, temperature=1.5, top_p=0.9, seed=seed, max_tokens=40
        )
        return str(answer.choices[0].message.content)

    first, again, other = [await drawn(seed) for seed in (7, 7, 8)]
    assert first == again != other


async def test_a_developer_s_message_is_a_system_message(fake: Board) -> None:
    texts = [
        await chat_text(fake, [{"role": role, "content": "Be brief."}, *MESSAGES])
        for role in ("system", "developer", "user")
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_a_list_of_one_prompt_is_that_prompt_and_of_two_is_refused(fake: Board) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:

        async def answer(prompt: object) -> httpx.Response:
            return await http.post("/completions", json={"prompt": prompt, "max_tokens": 4, "temperature": 0})

        alone, listed = await answer("hello"), await answer(["hello"])
        assert listed.json()["choices"][0]["text"] == alone.json()["choices"][0]["text"]
        assert (await answer(["hello", "you"])).status_code == 400
        assert (await answer([[1, 2]])).status_code == 200
