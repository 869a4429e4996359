"""The worker learns from the agent who asks, and shares its time among those."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgewright.errors import OutsideError
from edgewright_agent.engine_worker.batching.jobs import Job
from edgewright_agent.engine_worker.batching.model_thread import ModelThread
from edgewright_agent.engine_worker.http.app import CLIENT_HEADER, WorkerSettings, make_app
from edgewright_agent.engine_worker.model.fake import FakeBackend
from edgewright_agent.engines import GenerationRequest, ScoreItem
from edgewright_agent.engines.http import exchange
from edgewright_agent.engines.http.client import EngineClient

COMPLETION = {"prompt": "x", "max_tokens": 2}
SCORE = {"items": [{"context": "a", "continuations": ["b", "c"]}]}


async def test_every_sequence_belongs_to_the_client_that_the_agent_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[str] = []
    results = ModelThread.results

    def noted(self: ModelThread, job: Job) -> AsyncGenerator[Sequence[Any], None]:
        clients.append(job.client)
        return results(self, job)

    monkeypatch.setattr(ModelThread, "results", noted)
    app = make_app(FakeBackend(tmp_path, 256), WorkerSettings("model", 8))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as http:
        for route, body in (("/v1/completions", COMPLETION), ("/v1/score", SCORE)):
            headers = {CLIENT_HEADER: f"client of {route}"}
            assert (await http.post(route, json=body, headers=headers)).status_code == 200
        assert (await http.post("/v1/completions", json=COMPLETION)).status_code == 200
    assert clients == ["client of /v1/completions", "client of /v1/score", ""]


async def test_the_agent_names_the_client_of_each_request(tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    assert exchange.CLIENT_HEADER == CLIENT_HEADER
    async with await asyncio.start_unix_server(note, tmp_path / "http"):
        engine = EngineClient(tmp_path / "http", "model")
        with pytest.raises(OutsideError):
            [event async for event in engine.generate(GenerationRequest(prompt="x"), "a certificate")]
        with pytest.raises(OutsideError):
            await engine.score([ScoreItem("a", ["b"])], "an address")
        with pytest.raises(OutsideError):
            async with engine.relay("POST", "/v1/completions", json.dumps(COMPLETION).encode(), "unix"):
                pass
        with contextlib.suppress(OutsideError):
            await engine.heartbeat()
    named = [head.partition(f"{CLIENT_HEADER}: ".encode())[2].partition(b"\r\n")[0] for head in heads]
    assert named == [b"a certificate", b"an address", b"unix", b""]
