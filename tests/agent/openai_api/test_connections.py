"""Connections: how many there may be, how long they may be idle, and requests that are sent ahead on one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgewright.address import Address
from edgewright_agent.openai_api import connections, listener
from edgewright_agent.openai_api.http import protocol
from edgewright_agent.openai_api.settings import OpenAISettings
from edgewright_agent.runtime import file_handles as handles
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_builder.keys.credentials import create_credentials
from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve, until
from tests.support.raw_http import (
    MODELS,
    PATIENCE_SECONDS,
    connection,
    head,
    post,
    talk,
)
from tests.support.scripted_engine import Script


@pytest.mark.asyncio(loop_scope="module")
async def test_an_idle_connection_is_closed_without_a_word(
    running: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    async with connection(running) as client:
        assert await client.read_rest() == b""


@pytest.mark.asyncio(loop_scope="module")
async def test_an_answered_connection_stays_open_for_longer_than_a_head_may_take(
    running: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    async with connection(running) as client:
        for _ in range(2):
            await client.write(MODELS)
            assert (await client.read_answer()).status == 200
            await asyncio.sleep(3 * PATIENCE_SECONDS)
        monkeypatch.setattr(protocol, "IDLE_SECONDS", PATIENCE_SECONDS)
        await client.write(MODELS)
        assert (await client.read_answer()).status == 200
        assert await client.read_rest() == b""


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_sent_ahead_are_answered_in_turn_and_garbage_after_them_ends_the_connection(
    running: Board,
) -> None:
    async with connection(running) as client:
        await client.write(
            MODELS + post({"prompt": "hello"}) + post(b"nothing") + b"\x16\x03\x01 garbage\r\n\r\n"
        )
        assert [(await client.read_answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.read_rest() == b""


@pytest.mark.asyncio(loop_scope="module")
async def test_garbage_does_not_break_into_an_answer_under_way(running: Board, served_script: Script) -> None:
    served_script.pause_seconds = 0.01
    async with connection(running) as client:
        await client.write(post({"prompt": "hello", "max_tokens": 20, "stream": True}))
        await client.read_until(b"data: ")
        await client.write(b"\x16\x03\x01 garbage" * 10_000)
        rest = await client.read_rest()
        assert rest.count(b'"text"') == 20
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@pytest.mark.asyncio(loop_scope="module")
async def test_only_so_many_requests_may_be_sent_ahead(running: Board) -> None:
    async with connection(running) as client:
        await client.write(MODELS * 500)
        answers = (await client.read_rest()).count(b"HTTP/1.1 200 OK")
    assert 1 <= answers <= protocol.REQUESTS_AHEAD_MAX + 1


@contextlib.asynccontextmanager
async def small_board(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: Script, settings: OpenAISettings | None = None
) -> AsyncIterator[Board]:
    """A board that has four connections, two for each peer."""
    monkeypatch.setattr(handles, "OPENAI_CONNECTIONS_MAX", 4)
    async with board(folder, settings or OpenAISettings(folder / "openai.sock"), script=script) as running:
        await serve(running.agent, TREE)
        yield running


async def test_the_oldest_idle_connection_makes_room_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small_board(tmp_path, monkeypatch, Script()) as running, connection(running) as used:
        await used.write(MODELS)
        assert (await used.read_answer()).status == 200
        async with connection(running) as silent:
            assert (await talk(running, MODELS)).status == 200
            assert await used.read_rest() == b""
            await silent.write(MODELS)
            assert (await silent.read_answer()).status == 200


async def test_a_request_that_is_not_whole_yet_does_not_hold_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        small_board(tmp_path, monkeypatch, Script()) as running,
        connection(running) as first,
        connection(running) as second,
    ):
        await first.write(head("content-length: 500") + b"{")
        await second.write(MODELS[:-2])
        await asyncio.sleep(0.05)
        for _ in range(4):
            assert (await talk(running, MODELS)).status == 200


async def test_requests_under_way_keep_their_connections_and_others_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(pause_seconds=0.01)
    request = post({"prompt": "hello", "max_tokens": 10**6, "stream": True})
    async with small_board(tmp_path, monkeypatch, script) as running:
        async with connection(running) as first, connection(running) as second:
            for client in (first, second):
                await client.write(request)
            await until(lambda: running.agent.telemetry.serving().requests_in_flight == 2, 20)
            answer = await talk(running, MODELS)
            assert (answer.status, answer.error["code"]) == (429, "too_many_connections")
            assert answer.headers["retry-after"] == "1"
            await first.read_until(b"data: ")  # one is served, the other waits for its slot
            assert running.agent.telemetry.serving().requests_in_flight == 2
        while (await talk(running, MODELS)).status == 429:
            await asyncio.sleep(0.01)


async def test_silent_clients_do_not_keep_others_from_a_tls_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_credentials(tmp_path / "keys")
    tls = TlsFiles(tmp_path / "keys/agent.pem", tmp_path / "keys/agent.key", tmp_path / "keys/ca.pem")
    settings = OpenAISettings(Address("127.0.0.1", 0), "k" * 32, tls)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "keys/ca.pem"))
    monkeypatch.setattr(OpenAISettings, "is_encrypted", True)  # on loopback too
    async with small_board(tmp_path, monkeypatch, Script(), settings) as running:
        url = running.url.replace("127.0.0.1", "localhost")
        port = int(url.split(":")[2].split("/")[0])
        with contextlib.ExitStack() as stack:
            for _ in range(12):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            await asyncio.sleep(0.1)
            headers = {"authorization": "Bearer " + "k" * 32}
            async with httpx.AsyncClient(verify=trusting, base_url=url, headers=headers) as http:
                assert (await http.post("/completions", json={"prompt": "hello"})).status_code == 200


async def test_a_client_that_never_finishes_its_handshake_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_credentials(tmp_path / "keys")
    tls = TlsFiles(tmp_path / "keys/agent.pem", tmp_path / "keys/agent.key", tmp_path / "keys/ca.pem")
    monkeypatch.setattr(OpenAISettings, "is_encrypted", True)
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", PATIENCE_SECONDS)
    settings = OpenAISettings(Address("127.0.0.1", 0), "k" * 32, tls)
    async with small_board(tmp_path, monkeypatch, Script(), settings) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.split(":")[2][:-3]))
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


def test_a_peer_that_crowds_the_server_closes_its_own_connections_only() -> None:
    closed: list[str] = []

    def of(peer: str, name: str) -> connections.Connection:
        return connections.Connection(peer, lambda: True, lambda: closed.append(name))

    opened = connections.Connections(4, 2)
    names = [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3"), ("c", "c1"), ("d", "d1")]
    assert all(opened.admit(of(peer, name)) for peer, name in names)
    assert closed == ["a1", "a2"]  # of the peer that has most, the oldest


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", "unix"),
    ],
)
def test_a_peer_is_an_address_or_the_network_that_one_customer_gets(address: Any, peer: str) -> None:
    assert connections.peer_of(address) == peer
