"""What the meter counts of requests through the OpenAI-compatible API."""

from __future__ import annotations

import openai
import pytest

from tests.support.openai_servers import (
    MESSAGES,
    TO_THE_END,
    Board,
    idle,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_stream_is_measured_token_by_token(fake: Board) -> None:
    before = await idle(fake)
    stream = await fake.client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=11, stream=True, extra_body=TO_THE_END
    )
    assert [chunk async for chunk in stream]
    after = await idle(fake)
    assert after.requests == before.requests + 1
    assert after.generated_tokens == before.generated_tokens + 11
    assert after.prompt_tokens > before.prompt_tokens
    assert after.time_to_first_token_seconds.count == before.time_to_first_token_seconds.count + 1
    assert after.time_per_output_token_seconds.count == before.time_per_output_token_seconds.count + 1
    assert after.inter_token_latency_seconds.count == before.inter_token_latency_seconds.count + 10


async def test_a_whole_answer_counts_with_its_tokens_and_no_made_up_latency(fake: Board) -> None:
    before = await idle(fake)
    await fake.client.completions.create(model="tiny", prompt="hello", max_tokens=9, extra_body=TO_THE_END)
    after = await idle(fake)
    assert after.generated_tokens == before.generated_tokens + 9
    assert after.time_to_first_token_seconds == before.time_to_first_token_seconds


async def test_a_request_that_its_client_got_wrong_is_no_failure_of_the_board(fake: Board) -> None:
    before = await idle(fake)
    with pytest.raises(openai.BadRequestError):
        await fake.client.completions.create(model="tiny", prompt="hello", temperature=-1)
    with pytest.raises(openai.NotFoundError):
        await fake.client.completions.create(model="gpt-5", prompt="hello")
    after = await idle(fake)
    assert after.requests == before.requests
    assert after.requests_failed == before.requests_failed
    assert after.requests_rejected == before.requests_rejected + 2
