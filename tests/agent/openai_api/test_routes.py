"""The routes that there are, and those that there are not."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.support.openai_servers import (
    Board,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_model_is_listed(fake: Board) -> None:
    (model,) = (await fake.client.models.list()).data
    assert model.id == "tiny"


async def test_one_model_can_be_asked_for_by_name(fake: Board) -> None:
    assert (await fake.client.models.retrieve("tiny")).id == "tiny"
    with pytest.raises(openai.NotFoundError, match=r"'huge'.*tiny is served") as error:
        await fake.client.models.retrieve("huge")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize("path", ["/v1/score", "/v1/adapter", "/health", "/", "/v1", "/v1/../v1/score"])
async def test_the_engines_private_routes_are_not_there(fake: Board, path: str) -> None:
    async with httpx.AsyncClient(base_url=fake.url.removesuffix("/v1")) as http:
        answer = await http.post(path, json={"items": [], "file": None, "model": "x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


async def test_a_wrong_method_is_refused(fake: Board) -> None:
    async with httpx.AsyncClient(base_url=fake.url) as http:
        answer = await http.get("/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
