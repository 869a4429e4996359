"""Models whose attention sees a window of the text only: no row of the KV cache is narrower than the window."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edgewright_agent.engine_worker.model.graph import window_tokens
from edgewright_agent.engines import Engine, GenerationRequest
from tests.support.engine_releases import CONTEXT_TOKENS, Release, collect, tiny_onnx_release

pytestmark = pytest.mark.asyncio(loop_scope="module")

WINDOW_TOKENS = 64  # of a context of 256, whose rows would begin at 32


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return tiny_onnx_release(tmp_path_factory.mktemp("window"), WINDOW_TOKENS)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[CONTEXT_TOKENS, 48])
async def engine(request: pytest.FixtureRequest, release: Release) -> AsyncIterator[Engine]:
    """One whose context is wider than the window, and one whose context is narrower."""
    async with release.running(context_tokens=request.param) as engine:
        yield engine


async def test_the_graph_says_how_wide_its_window_is(release: Release, tiny_onnx: Release) -> None:
    assert window_tokens(release.tree / "engine/model.onnx") == WINDOW_TOKENS
    assert window_tokens(tiny_onnx.tree / "engine/model.onnx") == 0


async def test_a_short_request_runs_and_writes_what_transformers_writes(
    engine: Engine, release: Release
) -> None:
    reference = json.loads((release.tree / "reference.json").read_text(encoding="utf-8"))
    request = GenerationRequest(prompt=reference["prompt"], max_tokens=24, ignore_eos=True)
    assert (await collect(engine, request))[1] == reference["greedy"]
    together = await asyncio.gather(*(collect(engine, request) for _ in range(6)))
    assert [tokens for _, tokens, _ in together] == [reference["greedy"]] * 6
