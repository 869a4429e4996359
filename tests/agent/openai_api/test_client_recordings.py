"""What client libraries really send, replayed: each gets the answer it expects, or an error that names the field.

`scripts/record-clients` makes the recordings; each holds a client's version and its requests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support.artifacts import TREE
from tests.support.openai_servers import Board, board, serve

RECORDINGS = sorted((Path(__file__).parent / "clients/recordings").glob("*.json"))
CONTEXT_TOKENS = 2048  # agents bring long instructions, and a token of this engine is a byte
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
pytestmark = pytest.mark.asyncio(loop_scope="module")


def recorded() -> list[Any]:
    """One parameter for each request of each client."""
    files = [json.loads(file.read_text(encoding="utf-8")) for file in RECORDINGS]
    return [
        pytest.param(request, id=f"{file['client']} {file['version']} {request['scenario']}")
        for file in files
        for request in file["requests"]
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def long_context(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Board]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_FAKE_ENGINE", "1")
        async with board(tmp_path_factory.mktemp("board")) as running:
            limits = {"context_tokens": CONTEXT_TOKENS, "concurrency": 1}
            await serve(running.agent, {**TREE, "engine/fake.json": b'{"words": 12}'}, limits=limits)
            yield running


async def test_there_are_recordings_of_at_least_twelve_clients() -> None:
    assert len(RECORDINGS) >= 12


@pytest.mark.parametrize("request_", recorded())
async def test_a_recorded_request_is_answered_as_its_client_expects(
    long_context: Board, request_: dict[str, Any]
) -> None:
    body = request_["body"]
    async with httpx.AsyncClient(base_url=long_context.url.removesuffix("/v1"), timeout=60) as http:
        answer = await http.request(
            request_["method"], request_["path"], headers=request_["headers"], content=json.dumps(body)
        )
    if body.get("tools"):
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"].startswith(("tools: ", "tool_choice: ")), answer.text
        return
    assert answer.status_code == 200, answer.text
    if request_["path"] == "/v1/chat/completions":
        text, is_whole = _chunks(answer.text, body) if body.get("stream") else _completion(answer.text)
    else:
        text, is_whole = _events(answer.text) if body.get("stream") else _response(answer.text)
    schema = _schema(body)
    if (
        schema is not None and is_whole
    ):  # a schema that allows more fields may be filled up to the context's end
        assert set(json.loads(text)) >= set(schema["properties"])


def _completion(text: str) -> tuple[str, bool]:
    choice = ChatCompletion.model_validate_json(text, strict=True).choices[0]
    assert choice.message.content is not None
    return choice.message.content, choice.finish_reason == "stop"


def _chunks(text: str, body: dict[str, Any]) -> tuple[str, bool]:
    *events, done = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(event, strict=True) for event in events]
    wants_usage = (body.get("stream_options") or {}).get("include_usage", False)
    assert (chunks[-1].usage is not None) == wants_usage
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason == "stop"


def _response(text: str) -> tuple[str, bool]:
    response = Response.model_validate_json(text, strict=True)
    return response.output_text, response.status == "completed"


def _events(text: str) -> tuple[str, bool]:
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    events = [EVENT.validate_json(event, strict=True) for event in data]
    assert events[-1].type in ("response.completed", "response.incomplete")
    return events[-1].response.output_text, events[-1].type == "response.completed"


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    chat, responses = body.get("response_format") or {}, (body.get("text") or {}).get("format") or {}
    schema: dict[str, Any] | None = (chat.get("json_schema") or responses).get("schema")
    return schema
