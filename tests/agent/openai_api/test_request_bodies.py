"""Bodies that are wrong, too long or too slow: each gets its error, and the next request is served."""

from __future__ import annotations

import asyncio

import pytest

from edgewright_agent.openai_api.http import body as bodies
from edgewright_agent.openai_api.http import protocol
from tests.support.openai_servers import Board
from tests.support.raw_http import (
    PATIENCE_SECONDS,
    connection,
    flood,
    head,
    post,
    talk,
    trickle,
)
from tests.support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "\xff\xfe"}',
        b"prompt",
        b"",
        b"[1]",
        b"null",
        b"[" * 200_000,
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
    ids=["not UTF-8", "no JSON", "empty", "a list", "null", "deep", "a huge number"],
)
async def test_a_body_that_is_no_request_is_refused(running: Board, body: bytes) -> None:
    answer = await talk(running, post(body))
    assert answer.status == 400
    assert answer.error["code"] == "invalid_json"
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "nonsense",
    [b"[]," * 1_300_000, b"{}," * 1_300_000, b"0," * 2_000_000, b'{"a":0},' * 500_000],
    ids=["lists", "objects", "numbers", "members"],
)
@pytest.mark.parametrize("route", ["/v1/completions", "/v1/responses"])
async def test_a_body_of_too_many_values_is_refused_unread(
    running: Board, nonsense: bytes, route: str
) -> None:
    body = b'{"stream": true, "prompt": "x", "nonsense": [' + nonsense + b"0]}"
    answer = await talk(running, head(f"content-length: {len(body)}", route=route) + body)
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


async def test_a_body_announced_as_giant_is_refused_before_a_byte_of_it_is_read(running: Board) -> None:
    for expect in ((), ("expect: 100-continue",)):
        async with connection(running) as client:
            await client.write(head(f"content-length: {10**12}", *expect))
            answer = await client.read_answer()
            assert answer.status == 413
            assert f"{10**12:,} bytes" in answer.error["message"]
            assert f"{bodies.BODY_BYTES_MAX:,} (4.0 MiB)" in answer.error["message"]
            assert await client.read_rest() == b""  # closed


async def test_a_body_that_never_ends_is_refused_once_it_is_too_long(running: Board) -> None:
    async with connection(running) as client:
        await client.write(head("transfer-encoding: chunked"))
        answer, sent = await flood(client, b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert answer.status == 413
    assert sent <= bodies.BODY_BYTES_MAX + 2**21


async def test_all_bodies_together_are_bounded(running: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODIES_BYTES_MAX", 100_000)
    async with connection(running) as client:
        await client.write(head("content-length: 90001") + b"x" * 90_000)
        while (await talk(running, post({"prompt": "x" * 20_000}))).status != 429:
            await asyncio.sleep(0.01)
        answer = await talk(running, post({"prompt": "x" * 20_000}))
        assert answer.headers["retry-after"] == "1"


async def test_chunks_with_endless_trailers_are_not_kept(running: Board) -> None:
    async with connection(running) as client:
        await client.write(head("transfer-encoding: chunked") + b"2\r\n{}\r\n0\r\n")
        answer, sent = await flood(client, b"x: " + b"y" * 65536 + b"\r\n")
    assert answer.status == 413
    assert sent <= protocol.MESSAGE_BYTES_MAX + 2**21


async def test_a_body_that_trickles_in_runs_out_of_time(
    running: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", PATIENCE_SECONDS)
    async with connection(running) as client:
        await client.write(head("content-length: 5000"))
        trickling = asyncio.create_task(trickle(client, b" " * 5000))
        answer = await client.read_answer()
        assert (answer.status, answer.error["code"]) == (408, "timeout")
        assert await client.read_rest() == b""
        await trickling


async def test_a_request_that_breaks_off_half_way_asks_nothing_of_the_engine(
    running: Board, served_script: Script
) -> None:
    before = running.agent.telemetry.serving().requests
    async with connection(running) as client:
        await client.write(head("content-length: 5000") + b'{"prompt": ')
        client.half_close()
        assert await client.read_rest() == b""
    assert running.agent.telemetry.serving().requests == before


async def test_large_bodies_wait_after_large_ones_were_refused_and_small_ones_do_not(
    running: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "REFUSED_BYTES_PER_SECOND", 600_000)  # 3 s and more
    nonsense = b'{"prompt":' + b"[]," * 700_000
    large = post({"prompt": "x" * 300_000})
    assert (await talk(running, head(f"content-length: {len(nonsense)}") + nonsense)).status == 413
    waiting = asyncio.create_task(talk(running, large))
    assert (await talk(running, post({"prompt": "x"}))).status == 200
    assert not waiting.done()
    assert (await waiting).status == 200


async def test_what_was_refused_is_paid_for_in_time() -> None:
    now = 10.0
    refused = bodies.RefusedBodies(clock=lambda: now)
    assert refused.pause_seconds() == 0
    refused.add(bodies.LARGE_BODY_BYTES)  # not over the limit
    assert refused.pause_seconds() == 0
    for _ in range(3):  # at once, over three connections
        refused.add(bodies.REFUSED_BYTES_PER_SECOND)
    assert refused.pause_seconds() == 3
    now += 2
    assert refused.pause_seconds() == 1
    now += 2
    assert refused.pause_seconds() == 0
    refused.add(100 * bodies.REFUSED_BYTES_PER_SECOND)
    assert refused.pause_seconds() == bodies.PAUSE_SECONDS_MAX
