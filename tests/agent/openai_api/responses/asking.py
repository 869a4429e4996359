"""How the tests ask `/v1/responses`."""

from __future__ import annotations

from typing import Any

import httpx
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.openai_servers import Board

QUESTION = "Why do plants need sunlight?"
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def post(running: Board, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.url) as http:
        return await http.post("/responses", json=body)


async def text_of(running: Board, **body: Any) -> str:
    answer = await post(running, temperature=0, max_output_tokens=40, **body)
    assert answer.status_code == 200, answer.text
    return str(Response.model_validate(answer.json()).output_text)
