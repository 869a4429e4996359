"""OpenAI HTTP from the agent to an engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any

from edgewright.errors import BusyError, EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.http.events import content, events
from edgewright_agent.engines.http.exchange import Endpoint, exchange, nonsense
from edgewright_agent.engines.http.request_checks import check_one_input
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
    tokens_with_text,
)
from edgewright_agent.runtime.threads import within

ADAPTER_ROUTE = "/v1/adapter"
HEARTBEAT_ROUTE = "/v1/heartbeat"
HEALTH_SECONDS = 10.0  # a slice of a long prompt may keep the engine from answering


class EngineClient:
    """One engine's HTTP. Raises what `Engine` says.

    A request waits its turn in the engine: the caller's deadline bounds it, there is no timeout here.
    """

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._model = model
        self._endpoint = endpoint

    async def healthy(self) -> bool:
        """Whether the engine answers 200."""
        try:
            return await within(HEALTH_SECONDS, self._is_healthy())
        except asyncio.TimeoutError:
            return False

    async def _is_healthy(self) -> bool:
        try:
            async with exchange(self._endpoint, "GET", "/health") as reply:
                return reply.status == HTTPStatus.OK
        except OutsideError:
            return False

    async def heartbeat(self) -> None:
        """Asks the worker, which answers once its model has computed something. Raises OutsideError."""
        async with exchange(self._endpoint, "GET", HEARTBEAT_ROUTE) as reply:
            if reply.status != HTTPStatus.OK:
                raise _refusal(HEARTBEAT_ROUTE, reply.status, await reply.read())

    async def requests_together(self, slots: int, request_tokens: int) -> int | None:
        """Asks how many sequences of that length the KV cache has room for; None if the answer is no number."""
        async with self.relay("GET", f"/v1/together/{request_tokens}", b"") as reply:
            body = await reply.read()
        try:
            requests = json.loads(body)["requests"]
        except (ValueError, KeyError, TypeError):
            return None
        return min(slots, requests) if isinstance(requests, int) else None

    def relay(
        self, method: str, route: str, body: bytes, client: str = ""
    ) -> AbstractAsyncContextManager[Reply]:
        """See `Engine`."""
        return exchange(self._endpoint, method, route, body, client)

    def generate(self, request: GenerationRequest, client: str = "") -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then a Finish."""
        return self.stream(*completion(request, self._model), client)

    async def stream(
        self, route: str, body: dict[str, Any], client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        """Yields the tokens and the Finish of the completion that `body` asks for."""
        count, reason = 0, None
        async with self.sending(route, body, client) as reply, aclosing(events(reply.pieces)) as arrivals:
            async for together in arrivals:
                for event, chunk in ((event, content(event)) for event in together):
                    if chunk is None:
                        continue
                    if "error" in chunk:
                        raise _stream_error(chunk["error"])
                    for choice in chunk["choices"]:
                        for token in _tokens(choice, event.at_seconds):
                            count += 1
                            yield token
                        reason = choice["finish_reason"] or reason
                    if usage := chunk.get("usage"):
                        if reason not in ("stop", "length"):
                            raise nonsense(f"finish_reason {reason!r}")
                        yield Finish(reason, usage["prompt_tokens"], count)
                        return
        raise nonsense("a stream without usage counts")

    async def post(self, route: str, body: dict[str, Any], client: str = "") -> dict[str, Any]:
        """Returns the whole JSON answer."""
        async with self.sending(route, body, client) as reply:
            answer: dict[str, Any] = json.loads(await reply.read())
        return answer

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        """Returns one score per continuation."""
        answer = await self.post("/v1/score", {"items": [asdict(item) for item in items]}, client)
        return [[ContinuationScore(**score) for score in item] for item in answer["items"]]

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Switches the engine's adapter; later requests name `model`."""
        await self.post(ADAPTER_ROUTE, {"file": None if adapter is None else str(adapter), "model": model})
        self._model = model

    @asynccontextmanager
    async def sending(self, route: str, body: dict[str, Any], client: str = "") -> AsyncIterator[Reply]:
        """Gives the reply to a POST if it is 200; raises what another status means."""
        try:
            content = json.dumps(body, ensure_ascii=False).encode()
            async with self.relay("POST", route, content, client) as reply:
                if reply.status != HTTPStatus.OK:
                    raise _refusal(route, reply.status, await reply.read())
                yield reply
        except (ValueError, KeyError, TypeError) as error:
            raise nonsense(str(error)) from error


def completion(request: GenerationRequest, model: str) -> tuple[str, dict[str, Any]]:
    """Returns route and body. `return_token_ids` and `ignore_eos` are vLLM's extensions, which the worker shares."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop),
        "ignore_eos": request.ignore_eos,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    check_one_input(request)
    if request.messages is not None:
        return "/v1/chat/completions", body | {"messages": [dict(message) for message in request.messages]}
    return "/v1/completions", body | {"prompt": request.prompt}


def _stream_error(error: dict[str, Any]) -> EdgewrightError:
    """Returns the error that ends a stream: of the request, or of the engine."""
    message = str(error["message"])
    if error.get("type") == "invalid_request_error":
        return InputError(message)
    return OutsideError(message, Reason.REASON_ENGINE_FAILED)


def _tokens(choice: dict[str, Any], at_seconds: float | None) -> list[Token]:
    """Returns the tokens of a chunk."""
    text = choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
    return tokens_with_text(choice.get("token_ids") or [], text, at_seconds)


def _refusal(route: str, status: int, body: bytes) -> EdgewrightError:
    """Returns the error that a status other than 200 means."""
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), error["code"]
    except (ValueError, KeyError, TypeError):
        message, code = body.decode(errors="replace")[:200], None
    if route == ADAPTER_ROUTE and status == HTTPStatus.NOT_FOUND:
        return RefusedError("This engine takes no adapters.", Reason.REASON_ENGINE_UNAVAILABLE)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return BusyError(message, Reason.REASON_OVERLOADED)
    if code == "context_length_exceeded":
        return InputError(message, Reason.REASON_CONTEXT_EXCEEDED)
    if 400 <= status < 500:
        return InputError(message)
    return OutsideError(message, Reason.REASON_ENGINE_FAILED)
