"""When a request to a model's server is made again, and when not before."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from edgewright.errors import OutsideError
from edgewright_builder.data.data_teacher import TeacherSampling
from edgewright_builder.data.served_teacher import EndpointClient
from edgewright_builder.model_server.retries import PassingFaultError, RetryPolicy, asked_seconds
from tests.support.teacher_server import Reply, said, teacher_server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between two requests, which take no time here."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    monkeypatch.setattr("edgewright_builder.model_server.retries.asyncio.sleep", sleep)
    return seconds


def in_a(header: str) -> float:
    return asked_seconds(httpx.Headers({"Retry-After": header}))


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0.5", 0.5), ("0", 0), ("-3", 0), ("nan", 0), ("soon", 0), ("", 0),
                            ("1e9", 600), ("inf", 600), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("²", 0)]
)  # fmt: skip
def test_seconds_are_read_and_nonsense_asks_for_nothing(header: str, seconds: float) -> None:
    assert asked_seconds(httpx.Headers([(b"Retry-After", header.encode())])) == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_a_date_is_a_wait_until_then(zone: str) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=100)).replace("+0000", zone)
    assert 0 < in_a(then) <= 100


def test_a_server_without_the_header_asks_for_nothing() -> None:
    assert asked_seconds(httpx.Headers()) == 0


def test_a_data_teacher_is_left_alone_as_long_as_it_asks(waits: list[float]) -> None:
    replies = iter([Reply(429, (b"",), 0, {"Retry-After": "7"}), Reply(503, (b"",), 0), said("yes")])

    def answer(_: dict[str, Any]) -> Reply:
        return next(replies)

    with teacher_server(answer) as server:
        client = EndpointClient(server.url, "teacher", retries=RetryPolicy(first_wait_seconds=0.01))
        chat = [{"role": "user", "content": "yes?"}]
        (completion,) = client.generate([chat], max_tokens=9, sampling=TeacherSampling(), seed=0)
    assert completion.text == "yes"
    assert waits[0] == 7
    assert waits[1] < 1


def test_waits_double_are_jittered_and_none_follows_the_last_attempt(waits: list[float]) -> None:
    async def refuse() -> None:
        raise PassingFaultError("a full queue")

    with pytest.raises(OutsideError, match="T1 failed 4 times, the last time with a full queue"):
        asyncio.run(RetryPolicy(4, 1.0).run(refuse, "T1"))
    assert len(waits) == 3
    assert all(ceiling / 2 <= wait <= ceiling for wait, ceiling in zip(waits, (1, 2, 4), strict=True))


def test_a_lost_connection_is_tried_again_and_another_error_is_not(waits: list[float]) -> None:
    faults = iter([httpx.ReadError("reset"), KeyError("a fault of ours")])

    async def fail() -> None:
        raise next(faults)

    with pytest.raises(KeyError):
        asyncio.run(RetryPolicy().run(fail, "T1"))
    assert len(waits) == 1
    assert math.isfinite(waits[0])
