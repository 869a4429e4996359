"""Request heads that are wrong, too long, slow or ambiguous: each gets its error, and the next request is served."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from edgewright_agent.openai_api.http import protocol, request_head
from tests.support.openai_servers import Board
from tests.support.raw_http import (
    LARGE_BYTES,
    MODELS,
    PATIENCE_SECONDS,
    connection,
    flood,
    head,
    large_answer,
    post,
    talk,
    trickle,
)
from tests.support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("line", [b"x-padding: " + b"y" * 1000 + b"\r\n", b"y" * 1000, b"\r\n" * 500])
async def test_a_head_that_never_ends_is_refused(running: Board, line: bytes) -> None:
    async with connection(running) as client:
        if not line.startswith(b"\r"):
            await client.write(b"GET /v1/models HTTP/1.1\r\nx: ")
        answer, sent = await flood(client, line)
    assert answer.status == 431
    assert sent <= request_head.HEAD_BYTES_MAX + 2**21


async def test_a_head_that_trickles_in_runs_out_of_time(
    running: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    async with connection(running) as client:
        await client.write(MODELS)
        assert (await client.read_answer()).status == 200
        trickling = asyncio.create_task(trickle(client, MODELS * 10))
        answer = await client.read_answer()
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert await client.read_rest() == b""
        await trickling


async def test_a_head_begun_while_an_answer_is_read_runs_out_of_time_too(
    running: Board, served_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(served_script.running[0], "relay", large_answer)
    async with connection(running) as client:
        await client.write(post({"prompt": "hello"}))
        await asyncio.sleep(PATIENCE_SECONDS / 4)
        await client.write(MODELS[:20])
        await asyncio.sleep(PATIENCE_SECONDS / 4)
        assert len((await client.read_answer()).body) == LARGE_BYTES
        assert (await client.read_answer()).error["code"] == "request_timeout"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nno colon\r\n\r\n",
        b"CONNECT board:443 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"OPTIONS /v1/completions HTTP/1.1\r\nhost: localhost\r\n\r\n",
        head("content-length: -5"),
        head("content-length: five"),
        head("content-length: 5", "transfer-encoding: chunked"),
        head("transfer-encoding: chunked") + b"zz\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(running: Board, data: bytes) -> None:
    answer = await talk(running, data)
    assert answer.status in (400, 405)
    assert answer.error["type"] == "invalid_request_error"


UPGRADES = [
    ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQCAAAAAAIAAAAA"),
    ("Connection: keep-alive, Upgrade", "Upgrade: websocket"),
    ("upgrade: TLS/1.0, HTTP/1.1", "connection: upgrade"),
]


@pytest.mark.parametrize("upgrade", UPGRADES, ids=["curl --http2", "websocket", "TLS"])
@pytest.mark.parametrize("piece_bytes", [7, 10**6], ids=["in pieces", "at once"])
async def test_an_offer_to_upgrade_is_not_taken_and_the_request_is_answered(
    running: Board, upgrade: tuple[str, ...], piece_bytes: int
) -> None:
    body = json.dumps({"prompt": "hello", "max_tokens": 5}).encode()
    counted = head(*upgrade, f"content-length: {len(body)}") + body
    chunked = head("transfer-encoding: chunked", *upgrade) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    models = MODELS.removesuffix(b"\r\n") + "\r\n".join([*upgrade, "", ""]).encode()
    data = counted + models + chunked + MODELS
    async with connection(running) as client:
        for at in range(0, len(data), piece_bytes):
            await client.write(data[at : at + piece_bytes])
            await asyncio.sleep(0)
        answers = [await client.read_answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.body.count(b'"text"') for answer in answers] == [
        5,
        3,
        5,
        3,
    ]  # the scripted engine answers a GET too


async def test_a_body_behind_an_offer_to_upgrade_is_bounded_too(running: Board) -> None:
    async with connection(running) as client:
        await client.write(head("transfer-encoding: chunked", *UPGRADES[0]))
        answer, _ = await flood(client, b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert answer.status == 413


@pytest.mark.parametrize(
    "lines",
    [
        ["x: " + "y" * 200_000],
        ["x: " + "y" * request_head.HEAD_BYTES_MAX],
        [f"x-{n}: y" for n in range(10_000)],
        ["x:"] * 200,
        ["x" * 100_000 + ": y"],
    ],
    ids=["a long value", "just too long", "many fields", "too many short fields", "a long name"],
)
@pytest.mark.parametrize("method", ["GET /v1/models", "POST /v1/completions"])
async def test_a_head_that_arrives_at_once_has_the_same_bounds(
    running: Board, lines: list[str], method: str
) -> None:
    data = "\r\n".join([f"{method} HTTP/1.1", "host: localhost", *lines, "content-length: 2", "", "{}"])
    async with connection(running) as client:
        with contextlib.suppress(ConnectionError):
            await client.write(data.encode())
        answer = await client.read_answer()
        assert answer.status == 431
        assert await client.read_rest() == b""


async def test_a_target_that_arrives_at_once_is_bounded(running: Board) -> None:
    answer = await talk(
        running, b"GET /v1/models?" + b"x" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    assert answer.status == 431


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nHOST: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost, evil.example\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: evil@localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: local\xffhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost/x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: [\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost:localhost\r\n evil.example\r\n\r\n",
        b"GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET http://localhost/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\norigin: http://evil.example\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
        b"GET /v1/models HTTP/1.1\nhost: localhost\n\n",
        b"GET /v1/models HTTP/1.1\r\nhost : localhost\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"GET /v1/models HTTP/0.9\r\nhost: localhost\r\n\r\n",
        head("content-length: 2", "content-length: 2") + b"{}",
        head("content-length: 2, 2") + b"{}",
        head("content-length: 2", "content-length: 9") + b"{}",
        head("transfer-encoding: chunked", "content-length: 2") + b"0\r\n\r\n",
        head("transfer-encoding: gzip, chunked") + b"0\r\n\r\n",
        head("transfer-encoding: chunked", "transfer-encoding: chunked") + b"0\r\n\r\n",
        head("transfer-encoding: identity", "content-length: 2") + b"{}",
        b"POST /v1/completions HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_a_head_that_two_programs_could_read_in_two_ways_is_refused(
    running: Board, data: bytes
) -> None:
    async with connection(running) as client:
        await client.write(data)
        answer = await client.read_answer()
        assert answer.status in (400, 501, 505)
        assert answer.error["type"] in ("invalid_request_error", "server_error")
        assert await client.read_rest() == b""  # what follows belongs to nobody


async def test_http_1_0_needs_no_host_and_its_connection_is_closed(running: Board) -> None:
    async with connection(running) as client:
        await client.write(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert (await client.read_answer()).status == 200
        assert await client.read_rest() == b""


async def test_fields_behind_the_body_are_no_part_of_the_head(running: Board) -> None:
    body = json.dumps({"prompt": "hello", "max_tokens": 2}).encode()
    trailers = b"authorization: Bearer a\r\norigin: http://evil.example\r\nhost: evil.example\r\n\r\n"
    data = head("transfer-encoding: chunked") + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailers
    assert (await talk(running, data)).status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip"])
async def test_a_compressed_body_is_refused_by_the_name_of_its_coding(running: Board, coding: str) -> None:
    body = json.dumps({"prompt": "hello", "max_tokens": 2}).encode()
    answer = await talk(running, head(f"content-length: {len(body)}", f"content-encoding: {coding}") + body)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")
    assert coding in answer.error["message"]
    plain = head(f"content-length: {len(body)}", "content-encoding: identity") + body
    assert (await talk(running, plain)).status == 200
