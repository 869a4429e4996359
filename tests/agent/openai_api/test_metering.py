"""What the meter counts of requests through the OpenAI-compatible API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from edgewright_agent.openai_api.http.metering import StreamMeter
from edgewright_agent.telemetry.serving import RequestWindow, ServingStats
from edgewright_agent.telemetry.types import EndedRequest
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


class GapStats(ServingStats):
    """Keeps the inter-token latencies as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps_seconds: list[float] = []

    def token(self, since_last_seconds: float | None) -> None:
        super().token(since_last_seconds)
        if since_last_seconds is not None:
            self.gaps_seconds.append(since_last_seconds)


class Metered:
    """The chunks of a stream, each with its time, through the meter."""

    def __init__(self) -> None:
        self.stats = GapStats()
        self.ended: list[EndedRequest] = []
        window = RequestWindow(self.stats, lambda *seconds: None, lambda: 0.0, self.ended.append)
        self.meter = StreamMeter(window)

    def count(self, *timed: tuple[float, dict[str, Any]]) -> Metered:
        for at_seconds, chunk in timed:
            self.meter.count(chunk, at_seconds)
        return self

    def end(self, completion_tokens: int) -> Metered:
        counts = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": completion_tokens}}
        self.meter.count(counts, 99.0)
        self.meter.end()
        return self

    @property
    def gaps_seconds(self) -> list[float]:
        """The inter-token latencies."""
        return self.stats.gaps_seconds

    @property
    def tpot_seconds(self) -> float | None:
        """The time per output token."""
        return self.ended[0].time_per_output_token_seconds


def choice(text: str, index: int | None = 0, reason: str | None = None) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {**place, "delta": {"content": text}, "finish_reason": reason}


def of(index: int | None, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [choice(text, index, reason)]}


def role(index: int) -> dict[str, Any]:
    return {
        "choices": [{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    }


@pytest.mark.parametrize(
    ("tokens", "gaps"),
    [(2, [1.0]), (3, [1.0, 1.0])],  # llama.cpp ends in a chunk of its own, our worker with a token
)
async def test_an_end_without_text_is_a_token_where_the_counts_say_so(tokens: int, gaps: list[float]) -> None:
    metered = Metered().count((1, of(None, "a")), (2, of(None, "b")), (3, of(None, "", "length"))).end(tokens)
    assert metered.stats.serving().generated_tokens == tokens
    assert metered.gaps_seconds == gaps
    assert metered.tpot_seconds == 1.0


async def test_the_tokens_of_several_answers_are_timed_within_each() -> None:
    """Two answers of three tokens, one every second and one every two seconds."""
    metered = Metered().count(
        (0.5, role(0)), (0.5, role(1)),
        (1, of(0, "a")), (1.5, of(1, "x")), (2, of(0, "b")), (3, of(0, "c", "length")),
        (3.5, of(1, "y")), (5.5, of(1, "z", "length")),
    ).end(6)  # fmt: skip
    assert metered.gaps_seconds == [1.0, 1.0, 2.0, 2.0]
    assert metered.tpot_seconds == pytest.approx((2 + 4) / (6 - 2))
    assert metered.ended[0].time_to_first_token_seconds == 1.0
    assert metered.stats.serving().generated_tokens == 6


async def test_the_order_in_which_answers_take_turns_does_not_matter() -> None:
    """As several prompts come: one after the other, or from the last one on."""
    first = [(1.0, of(0, "a")), (2.0, of(0, "b", "stop"))]
    second = [(1.5, of(1, "x")), (4.5, of(1, "y", "stop"))]
    for timed in ([*first, *second], [*second, *first], [first[0], *second, first[1]]):
        metered = Metered().count(*timed).end(4)
        assert sorted(metered.gaps_seconds) == [1.0, 3.0]
        assert metered.tpot_seconds == 2.0


async def test_a_chunk_with_a_choice_of_each_answer_is_a_token_of_each() -> None:
    chunks = [{"choices": [choice(text, 0), choice(text, 1)]} for text in ("a", "b", "c")]
    metered = Metered().count(*zip((1.0, 3.0, 5.0), chunks, strict=True)).end(6)
    assert metered.gaps_seconds == [2.0] * 4
    assert metered.tpot_seconds == 2.0


async def test_each_answer_may_end_in_a_token_without_text() -> None:
    metered = Metered().count(
        (1, of(0, "a")), (1, of(1, "x")), (3, of(0, "", "stop")), (4, of(1, "y")), (9, of(1, "", "stop")),
    ).end(5)  # fmt: skip
    assert sorted(metered.gaps_seconds) == [2.0, 3.0, 5.0]
    assert metered.tpot_seconds == pytest.approx((2 + 8) / (5 - 2))


async def test_ends_without_text_that_are_no_tokens_make_no_gap() -> None:
    metered = Metered().count(
        (1, of(0, "a")), (1, of(1, "x")), (2, of(0, "b")), (3, of(0, "", "stop")), (4, of(1, "", "stop")),
    ).end(3)  # fmt: skip
    assert metered.gaps_seconds == [1.0]
    assert metered.tpot_seconds == 1.0


async def test_tokens_that_one_answer_sent_in_one_chunk_arrive_together() -> None:
    metered = Metered().count((1, of(0, "a")), (1, of(1, "x y z")), (3, of(0, "b")), (5, of(1, "w"))).end(6)
    assert sorted(metered.gaps_seconds) == [0.0, 0.0, 2.0, 4.0]
    assert metered.tpot_seconds == pytest.approx((2 + 4) / (6 - 2))


def of_unknown_share() -> Iterator[tuple[str, list[tuple[float, dict[str, Any]]], int]]:
    begun = [(1.0, of(0, "a")), (2.0, of(1, "x")), (3.0, of(0, "b")), (5.0, of(1, "y"))]
    yield "one of two ends is a token", [*begun, (6.0, of(0, "", "stop")), (7.0, of(1, "", "stop"))], 5
    yield "an answer without a chunk of tokens", [(0.5, role(2)), *begun], 6
    yield "fewer tokens than chunks", begun, 3


@pytest.mark.parametrize(
    ("timed", "tokens"), [pytest.param(*case, id=name) for name, *case in of_unknown_share()]
)
async def test_what_can_not_be_shared_out_among_the_answers_is_left_out(
    timed: list[tuple[float, dict[str, Any]]], tokens: int
) -> None:
    metered = Metered().count(*timed).end(tokens)
    assert metered.gaps_seconds == [2.0, 3.0]  # of the tokens whose answer is known
    assert metered.tpot_seconds is None
    assert metered.ended[0].generated_tokens == tokens
    assert metered.ended[0].time_to_first_token_seconds == 1.0


async def test_one_token_of_each_answer_gives_no_time_per_token() -> None:
    metered = Metered().count((1, of(0, "a", "length")), (2, of(1, "x", "length"))).end(2)
    assert metered.gaps_seconds == []
    assert metered.tpot_seconds is None
