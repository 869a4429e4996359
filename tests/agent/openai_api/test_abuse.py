"""Clients of the OpenAI API that are broken, slow or hostile: each gets its answer, and the next one is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from edgewright_agent.engines import Reply
from edgewright_agent.openai_api import body as bodies
from edgewright_agent.openai_api import protocol
from edgewright_agent.openai_api.settings import OpenAISettings
from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve, until
from tests.support.scripted_engine import Script

PATIENCE_SECONDS = 0.4
LARGE_BYTES = 3 * 2**20
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Board, Script]]:
    folder, script = tmp_path_factory.mktemp("board"), Script()
    async with board(folder, OpenAISettings(folder / "openai.sock"), script=script) as running:
        await serve(running.agent, TREE)
        yield running, script


@pytest.fixture
def script(served: tuple[Board, Script]) -> Script:
    return served[1]


@pytest_asyncio.fixture(loop_scope="module")
async def running(served: tuple[Board, Script], script: Script) -> AsyncIterator[Board]:
    """The board; whatever a test does to it, the next request is served."""
    yield served[0]
    script.pause_seconds = 0.0
    assert (await talk(served[0], post({"prompt": "hello"}))).status == 200


class Client:
    """A raw connection. What came is kept although the other side has closed and writing fails."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = b""

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    async def read_until(self, mark: bytes) -> bytes:
        """What came up to and with the mark."""
        while mark not in self._received:
            assert await self._read_more(), f"closed after {self._received!r}"
        found, self._received = self._received.split(mark, 1)
        return found + mark

    async def read_rest(self) -> bytes:
        """What comes until the other side closes."""
        while await self._read_more():
            pass
        rest, self._received = self._received, b""
        return rest

    async def read_answer(self) -> Answer:
        """One answer."""
        status, *lines = (await self.read_until(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        if "content-length" not in headers:
            return Answer(int(status.split()[1]), headers, await self.read_until(b"\r\n0\r\n\r\n"))
        size = int(headers["content-length"])
        while len(self._received) < size:
            assert await self._read_more(), f"closed after {self._received!r}"
        body, self._received = self._received[:size], self._received[size:]
        return Answer(int(status.split()[1]), headers, body)

    async def read_slowly(self, size: int, pause_seconds: float) -> int:
        """Some bytes now and then until `size` came or the other side closed; returns how many came."""
        while len(self._received) < size and await self._read_more():
            await asyncio.sleep(pause_seconds)
        return len(self._received)

    async def _read_more(self) -> bool:
        try:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 65536), 20)
        except ConnectionError:
            return False
        self._received += data
        return bool(data)


@contextlib.asynccontextmanager
async def connection(running: Board) -> AsyncIterator[Client]:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, running.url.removeprefix("unix:"))
        yield Client(connected)


async def talk(running: Board, data: bytes) -> Answer:
    async with connection(running) as client:
        await client.write(data)
        return await client.read_answer()


async def flood(client: Client, data: bytes) -> tuple[Answer, int]:
    """The answer to the same bytes over and over again, and how many were sent until it came."""
    answering, sent = asyncio.create_task(client.read_answer()), 0
    with contextlib.suppress(ConnectionError):
        while not answering.done():
            await client.write(data)
            await asyncio.sleep(0)
            sent += len(data)
    return await answering, sent


async def trickle(client: Client, data: bytes) -> None:
    """A byte now and then, for as long as there is somebody."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            await client.write(bytes([byte]))
            await asyncio.sleep(PATIENCE_SECONDS / 20)


def head(*lines: str, route: str = "/v1/completions") -> bytes:
    return "\r\n".join([f"POST {route} HTTP/1.1", "host: localhost", *lines, "", ""]).encode()


def post(body: Any) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(f"content-length: {len(content)}") + content


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


async def test_a_body_announced_as_giant_is_refused_before_a_byte_of_it_is_read(running: Board) -> None:
    for expect in ((), ("expect: 100-continue",)):
        async with connection(running) as client:
            await client.write(head(f"content-length: {10**12}", *expect))
            answer = await client.read_answer()
            assert answer.status == 413
            assert str(10**12) in answer.error["message"]
            assert str(bodies.BODY_BYTES_MAX) in answer.error["message"]
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


@pytest.mark.parametrize("line", [b"x-padding: " + b"y" * 1000 + b"\r\n", b"y" * 1000, b"\r\n" * 500])
async def test_a_head_that_never_ends_is_refused(running: Board, line: bytes) -> None:
    async with connection(running) as client:
        if not line.startswith(b"\r"):
            await client.write(b"GET /v1/models HTTP/1.1\r\nx: ")
        answer, sent = await flood(client, line)
    assert answer.status == 431
    assert sent <= protocol.HEAD_BYTES_MAX + 2**21


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


async def test_an_idle_connection_is_closed_without_a_word(
    running: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    async with connection(running) as client:
        assert await client.read_rest() == b""


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


async def test_a_client_that_reads_nothing_loses_its_slot(
    running: Board, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALL_SECONDS", PATIENCE_SECONDS)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(running.url.removeprefix("unix:"))
        client.sendall(post({"prompt": "hello", "max_tokens": 10**9, "stream": True}))
        (engine,) = script.running
        await until(lambda: engine.active_requests > 0, 20)
        await until(lambda: not engine.active_requests, 20)


@contextlib.asynccontextmanager
async def large_answer(method: str, route: str, body: bytes = b"") -> AsyncIterator[Reply]:
    """More than a socket's buffers hold."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b" " * LARGE_BYTES

    yield Reply(200, {"content-type": "application/json"}, pieces())


async def test_a_client_that_reads_slowly_but_steadily_gets_the_whole_answer(
    running: Board, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(protocol, "STALL_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(script.running[0], "relay", large_answer)
    async with connection(running) as client:
        await client.write(post({"prompt": "hello"}))
        await client.read_until(b"\r\n\r\n")
        began = asyncio.get_running_loop().time()
        received_bytes = await client.read_slowly(LARGE_BYTES, PATIENCE_SECONDS / 10)
        assert received_bytes == LARGE_BYTES
        assert asyncio.get_running_loop().time() - began > 4 * PATIENCE_SECONDS


@pytest.mark.parametrize("ahead", [b"", post({"prompt": "hello"})], ids=["alone", "asks on"])
async def test_a_client_that_reads_nothing_of_a_whole_answer_is_cut_off(
    running: Board, script: Script, monkeypatch: pytest.MonkeyPatch, ahead: bytes
) -> None:
    monkeypatch.setattr(protocol, "STALL_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(script.running[0], "relay", large_answer)
    async with connection(running) as client:
        await client.write(post({"prompt": "hello"}))
        await asyncio.sleep(PATIENCE_SECONDS / 2)
        await client.write(ahead)
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        assert len(await client.read_rest()) < LARGE_BYTES


async def test_a_head_begun_while_an_answer_is_read_runs_out_of_time_too(
    running: Board, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(script.running[0], "relay", large_answer)
    async with connection(running) as client:
        await client.write(post({"prompt": "hello"}))
        await asyncio.sleep(PATIENCE_SECONDS / 4)
        await client.write(MODELS[:20])
        await asyncio.sleep(PATIENCE_SECONDS / 4)
        assert len((await client.read_answer()).body) == LARGE_BYTES
        assert (await client.read_answer()).error["code"] == "request_timeout"


async def test_a_half_closed_stream_frees_the_engine(running: Board, script: Script) -> None:
    script.pause_seconds = 0.005
    async with connection(running) as client:
        await client.write(post({"prompt": "hello", "max_tokens": 10**6, "stream": True}))
        await client.read_until(b"data: ")
        (engine,) = script.running
        assert engine.active_requests == 1
        client.half_close()
        await until(lambda: not engine.active_requests, 5)


async def test_a_request_that_breaks_off_half_way_asks_nothing_of_the_engine(
    running: Board, script: Script
) -> None:
    before = running.agent.telemetry.serving().requests
    async with connection(running) as client:
        await client.write(head("content-length: 5000") + b'{"prompt": ')
        client.half_close()
        assert await client.read_rest() == b""
    assert running.agent.telemetry.serving().requests == before


async def test_requests_sent_ahead_are_answered_in_turn_and_garbage_after_them_ends_the_connection(
    running: Board,
) -> None:
    async with connection(running) as client:
        await client.write(
            MODELS + post({"prompt": "hello"}) + post(b"nothing") + b"\x16\x03\x01 garbage\r\n\r\n"
        )
        assert [(await client.read_answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.read_rest() == b""


async def test_garbage_does_not_break_into_an_answer_under_way(running: Board, script: Script) -> None:
    script.pause_seconds = 0.01
    async with connection(running) as client:
        await client.write(post({"prompt": "hello", "max_tokens": 20, "stream": True}))
        await client.read_until(b"data: ")
        await client.write(b"\x16\x03\x01 garbage" * 10_000)
        rest = await client.read_rest()
        assert rest.count(b'"text"') == 20
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


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


async def test_an_upgrade_is_not_followed(running: Board) -> None:
    upgrade = (
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    assert (await talk(running, upgrade)).status == 200


async def test_connections_are_bounded(running: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 2)
    async with connection(running), connection(running):
        await asyncio.sleep(0.05)
        answer = await talk(running, MODELS)
        assert answer.status == 429
    while (await talk(running, MODELS)).status == 429:
        await asyncio.sleep(0.01)
