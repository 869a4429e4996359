"""How many requests an engine is sent at once, and how many of them it computes together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from edgewright_agent.engines import EngineLimits, Reply, fake, onnx
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.process.process import EngineProcess
from edgewright_agent.engines.protocol.launch import EngineHttp, Launch
from edgewright_agent.engines.served import ServedEngine
from edgewright_agent.engines.vllm.client import VllmClient
from edgewright_agent.engines.worker_launch import SEQUENCES_MAX
from tests.support.artifacts import make_artifact

NO_PROCESS = cast("EngineProcess", None)


def served(launch: Launch) -> ServedEngine:
    return ServedEngine("any", NO_PROCESS, launch, Path("http"))


@pytest.mark.parametrize(
    ("engine", "concurrency", "expected"),
    [(onnx, 1, SEQUENCES_MAX), (onnx, 12, 12), (fake, 1, 1), (fake, 4, 4)],
)
def test_the_gate_lets_as_many_requests_to_an_engine_as_it_works_on(
    tmp_path: Path, engine: ModuleType, concurrency: int, expected: int
) -> None:
    limits = EngineLimits(256, concurrency)
    launch = engine.launch(tmp_path, make_artifact().manifest, limits, tmp_path / "http", None)
    assert served(launch).slots(concurrency) == expected


class AnsweringClient(EngineClient):
    """Gives one body to whoever asks."""

    def __init__(self, body: bytes) -> None:
        super().__init__(Path("http"), "model")
        self._body = body

    @asynccontextmanager
    async def relay(self, method: str, route: str, body: bytes, client: str = "") -> AsyncIterator[Reply]:
        assert (method, route) == ("GET", "/v1/together/2048")

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield self._body

        yield Reply(200, {}, pieces())


@pytest.mark.parametrize(
    ("slots_min", "concurrency", "body", "expected"),
    [
        (1, 1, b'{"requests": 8}', 1),  # it is sent one at a time
        (8, 1, b'{"requests": 8}', 8),
        (8, 1, b'{"requests": 1}', 1),
        (8, 16, b'{"requests": 4}', 4),
        (8, 8, b'{"error": "not found"}', None),
        (8, 8, b"", None),
        (8, 8, b"[1]", None),
    ],
)
async def test_how_many_requests_are_computed_together_is_what_the_worker_says(
    slots_min: int, concurrency: int, body: bytes, expected: int | None
) -> None:
    engine = served(Launch([], {}, AnsweringClient(body), slots_min=slots_min))
    assert await engine.requests_together(concurrency, 2048) == expected


async def test_vllm_computes_all_requests_that_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    http: EngineHttp = VllmClient(tmp_path / "http", "model", tmp_path, EngineLimits(4096, 8))
    options: dict[str, Any] = {"command": [], "environment": {}, "http": http}
    assert await served(Launch(**options)).requests_together(8, 2048) == 8
