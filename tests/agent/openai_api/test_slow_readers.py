"""Clients that read slowly or not at all: they hold neither a slot nor the engine for ever."""

from __future__ import annotations

import asyncio
import socket

import pytest

from edgewright_agent.openai_api.http import protocol
from tests.support.openai_servers import Board, until
from tests.support.raw_http import (
    LARGE_BYTES,
    PATIENCE_SECONDS,
    connection,
    large_answer,
    post,
)
from tests.support.scripted_engine import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_client_that_reads_nothing_loses_its_slot(
    running: Board, served_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALL_SECONDS", PATIENCE_SECONDS)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(running.url.removeprefix("unix:"))
        client.sendall(post({"prompt": "hello", "max_tokens": 10**9, "stream": True}))
        (engine,) = served_script.running
        await until(lambda: engine.active_requests > 0, 20)
        await until(lambda: not engine.active_requests, 20)


async def test_a_client_that_reads_a_byte_now_and_then_loses_its_slot(
    running: Board, served_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALL_SECONDS", PATIENCE_SECONDS)
    async with connection(running) as client:
        await client.write(post({"prompt": "hello", "max_tokens": 10**9, "stream": True}))
        (engine,) = served_script.running
        await until(lambda: engine.active_requests > 0, 20)
        sipping = asyncio.create_task(client.sip(PATIENCE_SECONDS / 20))
        await until(lambda: not engine.active_requests, 20)
        sipping.cancel()


async def test_a_client_that_reads_slowly_but_steadily_gets_the_whole_answer(
    running: Board, served_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(protocol, "STALL_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(served_script.running[0], "relay", large_answer)
    async with connection(running) as client:
        await client.write(post({"prompt": "hello"}))
        await client.read_until(b"\r\n\r\n")
        began = asyncio.get_running_loop().time()
        received_bytes = await client.read_slowly(LARGE_BYTES, PATIENCE_SECONDS / 10)
        assert received_bytes == LARGE_BYTES
        assert asyncio.get_running_loop().time() - began > 4 * PATIENCE_SECONDS


@pytest.mark.parametrize("ahead", [b"", post({"prompt": "hello"})], ids=["alone", "asks on"])
async def test_a_client_that_reads_nothing_of_a_whole_answer_is_cut_off(
    running: Board, served_script: Script, monkeypatch: pytest.MonkeyPatch, ahead: bytes
) -> None:
    monkeypatch.setattr(protocol, "STALL_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(served_script.running[0], "relay", large_answer)
    async with connection(running) as client:
        await client.write(post({"prompt": "hello"}))
        await asyncio.sleep(PATIENCE_SECONDS / 2)
        await client.write(ahead)
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        assert len(await client.read_rest()) < LARGE_BYTES


async def test_a_half_closed_stream_frees_the_engine(running: Board, served_script: Script) -> None:
    served_script.pause_seconds = 0.005
    async with connection(running) as client:
        await client.write(post({"prompt": "hello", "max_tokens": 10**6, "stream": True}))
        await client.read_until(b"data: ")
        (engine,) = served_script.running
        assert engine.active_requests == 1
        client.half_close()
        await until(lambda: not engine.active_requests, 5)
