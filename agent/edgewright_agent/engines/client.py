"""OpenAI HTTP over a Unix socket, from the agent to an engine."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.protocol import Finish, GenerationRequest, Score, ScoreItem, Token
from edgewright_agent.errors import BusyError, EdgewrightError, InputError, OutsideError, RefusedError

ADAPTER_ROUTE = "/v1/adapter"
CONNECT_SECONDS = 5.0
HEALTH_SECONDS = 10.0  # a slice of a long prompt may keep the engine from answering


class EngineClient:
    """One engine's HTTP. Raises what `Engine` says."""

    def __init__(self, socket: Path, model: str) -> None:
        self._model = model
        # A request waits its turn in the engine: the caller's deadline bounds it, not a read timeout.
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Whether the engine answers 200."""
        try:
            response = await self._http.get("/health", timeout=HEALTH_SECONDS)
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        """Tokens as they come, then a Finish."""
        return self.stream(*completion(request, self._model))

    async def stream(self, route: str, body: dict[str, Any]) -> AsyncGenerator[Token | Finish, None]:
        """Tokens and Finish of the completion that `body` asks for."""
        count, reason = 0, None
        async with self._sending(route, body) as response, aclosing(_events(response)) as events:
            async for event in events:
                for choice in event["choices"]:
                    for token, text in _tokens(choice):
                        count += 1
                        yield Token(text, token)
                    reason = choice["finish_reason"] or reason
                if usage := event.get("usage"):
                    if reason not in ("stop", "length"):
                        raise _nonsense(f"finish_reason {reason!r}")
                    yield Finish(reason, usage["prompt_tokens"], count)
                    return
        raise _nonsense("a stream without usage counts")

    async def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole JSON answer."""
        async with self._sending(route, body) as response:
            answer: dict[str, Any] = json.loads(await response.aread())
        return answer

    async def score(self, items: Sequence[ScoreItem]) -> list[list[Score]]:
        """One Score per continuation."""
        answer = await self.post("/v1/score", {"items": [asdict(item) for item in items]})
        return [[Score(**score) for score in item] for item in answer["items"]]

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Switches the engine's adapter; later requests name `model`."""
        await self.post(ADAPTER_ROUTE, {"file": None if adapter is None else str(adapter), "model": model})
        self._model = model

    @asynccontextmanager
    async def _sending(self, route: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The response once its headers are here; leaving the block closes the connection if it isn't read."""
        try:
            async with self._http.stream("POST", route, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(route, response.status_code, await response.aread())
                yield response
        except httpx.TransportError as error:
            message = f"The engine broke off the connection ({error or type(error).__name__})."
            raise OutsideError(message, Reason.REASON_ENGINE_FAILED) from error
        except (ValueError, KeyError, TypeError) as error:
            raise _nonsense(str(error)) from error


def completion(request: GenerationRequest, model: str) -> tuple[str, dict[str, Any]]:
    """Route and body. `return_token_ids` and `ignore_eos` are vLLM's extensions, which the worker shares."""
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
    if (request.prompt is None) == (request.messages is None):
        raise InputError("A request has either a prompt or messages; give one of them.")
    if request.messages is not None:
        return "/v1/chat/completions", body | {"messages": [dict(message) for message in request.messages]}
    return "/v1/completions", body | {"prompt": request.prompt}


async def _events(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The JSON of each server-sent event."""
    async with aclosing(response.aiter_lines()) as lines:  # type: ignore[type-var]
        async for line in lines:
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise OutsideError(event["error"]["message"], Reason.REASON_ENGINE_FAILED)
            yield event


def _tokens(choice: dict[str, Any]) -> list[tuple[int, str]]:
    """Tokens of a chunk. One chunk may bring several tokens: the text belongs to the last."""
    text = choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
    ids = choice.get("token_ids") or []
    return [(token, text if index == len(ids) - 1 else "") for index, token in enumerate(ids)]


def _refusal(route: str, status: int, body: bytes) -> EdgewrightError:
    """The error behind a status that is not 200."""
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), error["code"]
    except (ValueError, KeyError, TypeError):
        message, code = body.decode(errors="replace")[:200], None
    if route == ADAPTER_ROUTE and status == httpx.codes.NOT_FOUND:
        return RefusedError("This engine takes no adapters.", Reason.REASON_ENGINE_UNAVAILABLE)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return BusyError(message, Reason.REASON_OVERLOADED)
    if code == "context_length_exceeded":
        return InputError(message, Reason.REASON_CONTEXT_EXCEEDED)
    if 400 <= status < 500:
        return InputError(message)
    return OutsideError(message, Reason.REASON_ENGINE_FAILED)


def _nonsense(what: str) -> OutsideError:
    return OutsideError(f"The engine answered nonsense: {what}.", Reason.REASON_ENGINE_FAILED)
