"""Boards that serve the OpenAI API, one for each test module: engines are processes, or follow a script."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edgewright_agent.openai_api.settings import OpenAISettings
from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve
from tests.support.raw_http import post, talk
from tests.support.scripted_engine import Script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Board]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
        async with board(tmp_path_factory.mktemp("board")) as running:
            await serve(running.agent, {**TREE, "engine/fake.json": b'{"words": 12}'})
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Board, Script]]:
    folder, script = tmp_path_factory.mktemp("board"), Script()
    async with board(folder, OpenAISettings(folder / "openai.sock"), script=script) as running:
        await serve(running.agent, TREE)
        yield running, script


@pytest.fixture
def served_script(served: tuple[Board, Script]) -> Script:
    return served[1]


@pytest_asyncio.fixture(loop_scope="module")
async def running(served: tuple[Board, Script]) -> AsyncIterator[Board]:
    """The board; whatever a test does to it, the next request is served."""
    board, script = served
    yield board
    script.pause_seconds = 0.0
    assert (await talk(board, post({"prompt": "hello"}))).status == 200
