"""What the meter counts of requests through the OpenAI-compatible API."""

from __future__ import annotations

import openai
import pytest

from edgewright_agent.openai_api.http.metering import StreamMeter
from edgewright_agent.telemetry.serving import RequestWindow, ServingStats
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


def stream_of(*texts: str) -> list[dict[str, object]]:
    return [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in texts]


@pytest.mark.parametrize(
    ("tokens", "marks"),
    [(2, [1.0, 2.0]), (3, [1.0, 2.0, 3.0])],  # llama.cpp ends in a chunk of its own, our worker with a token
)
async def test_an_end_without_text_is_a_token_where_the_counts_say_so(
    tokens: int, marks: list[float]
) -> None:
    marked: list[float | None] = []
    window = RequestWindow(ServingStats(), lambda *seconds: None, lambda: 0.0)
    window.token = marked.append  # type: ignore[assignment, method-assign]
    meter = StreamMeter(window)
    end: dict[str, object] = {"choices": [{"delta": {}, "finish_reason": "length"}]}
    counts: dict[str, object] = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}
    for at_seconds, chunk in enumerate([*stream_of("a", "b"), end, counts], start=1):
        meter.count(chunk, float(at_seconds))
    meter.end()
    assert marked == marks
