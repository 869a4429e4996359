"""TensorRT Edge-LLM's HTTP in the agent's terms."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from edgewright.errors import EdgewrightError, InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.edge_llm.answers import AnswerShape, tokens_too_many
from edgewright_agent.engines.edge_llm.chat_body import (
    TEMPERATURE_MAX,
    TextEnds,
    chat_body,
    chat_fields,
    completion_fields,
    tokens_of,
)
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.http.events import contents
from edgewright_agent.engines.http.exchange import LoopbackPort, exchange, nonsense
from edgewright_agent.engines.http.openai_fields import (
    CHAT,
    COMPLETIONS,
    MAX_TOKENS,
    ROUTES,
    WrongFieldError,
    parse_fields,
)
from edgewright_agent.engines.http.request_checks import (
    BoundedQueue,
    check_one_input,
    check_request,
    check_sampling,
    context_exceeded,
)
from edgewright_agent.engines.protocol.launch import EngineLimits
from edgewright_agent.engines.protocol.requests import (
    UNTOLD_ID,
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
    tokens_with_text,
)

NO_SCORES = (
    "TensorRT Edge-LLM gives no log-probabilities of a text that it did not write, so nothing can be scored with it. "
    "The build's report has the accuracy of the checkpoint that it serves."
)


class EdgeLlmClient:
    """One server's HTTP. Raises what `Engine` says."""

    def __init__(self, endpoint: LoopbackPort, model: str, texts: TextEnds, limits: EngineLimits) -> None:
        self._endpoint = endpoint
        self._http = EngineClient(endpoint, model)
        self._model = model
        self._texts = texts
        self._context_tokens = limits.context_tokens
        self._at_once = limits.concurrency
        self._queue = BoundedQueue(limits.concurrency)

    async def healthy(self) -> bool:
        """Whether the server answers 200, which it does once the engine is loaded."""
        return await self._http.healthy()

    async def heartbeat(self) -> None:
        """Lets the engine generate one token, in turn with the requests that it has. Raises OutsideError."""
        request = GenerationRequest(prompt=".", max_tokens=1)
        body = chat_body(request, self._model, self._texts, self._context_tokens)
        await self._http.post(CHAT, body | {"stream": False, "stream_options": None})

    async def requests_together(self, slots: int, request_tokens: int) -> int | None:
        """Returns `slots`: the engine was built for as many sequences, and batches them in flight."""
        return slots

    async def generate(
        self, request: GenerationRequest, client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then a Finish."""
        check_request(request)
        check_sampling(request.temperature, request.top_p)
        if request.temperature > TEMPERATURE_MAX:
            raise InputError(f"temperature is {request.temperature:g}; this engine takes 0 to 2.")
        check_one_input(request)
        with self._queue.place():
            body = chat_body(request, self._model, self._texts, self._context_tokens)
            try:
                async with (
                    self._http.sending(CHAT, body) as reply,
                    aclosing(_generated(reply.pieces)) as generated,
                ):
                    async for event in generated:
                        yield event
            except (InputError, OutsideError) as error:
                raise self._in_our_words(error, request) from error

    def _in_our_words(self, error: EdgewrightError, request: GenerationRequest) -> EdgewrightError:
        tokens = tokens_too_many(str(error))
        if tokens is None:
            return error
        return context_exceeded(tokens, max(1, request.max_tokens), self._context_tokens)

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        """Refuses, saying why."""
        raise RefusedError(NO_SCORES, Reason.REASON_ENGINE_UNAVAILABLE)

    async def use_adapter(self, adapter: object, model: str) -> None:
        """Refuses: an engine is built with or without its adapters."""
        raise RefusedError("TensorRT Edge-LLM takes no adapters here.", Reason.REASON_ENGINE_UNAVAILABLE)

    @asynccontextmanager
    async def relay(self, method: str, route: str, body: bytes, client: str = "") -> AsyncIterator[Reply]:
        """See `Engine`. Completions are sent as chats without a template, and put into their shape again."""
        if method != "POST" or route not in ROUTES:
            async with exchange(self._endpoint, method, route, body) as reply:
                yield reply
            return
        try:
            fields = parse_fields(route, body, self._model)
            shape = AnswerShape.of(route, fields, self._context_tokens)
            sent = self._sent(route, fields)
        except WrongFieldError as error:
            yield error.reply
            return
        async with exchange(self._endpoint, "POST", CHAT, json.dumps(sent).encode()) as reply:
            yield shape.put_right(reply)

    def _sent(self, route: str, fields: dict[str, Any]) -> dict[str, Any]:
        if route == COMPLETIONS:
            fields = completion_fields(fields, self._texts, MAX_TOKENS)
        return chat_fields(fields, self._texts, self._context_tokens)


async def _generated(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[Token | Finish, None]:
    """Yields the tokens of a stream as they come, then the Finish.

    A chunk names its tokens among its log-probabilities. Text that comes without any, which a stop string had held
    back, is a token of its own whose id is UNTOLD_ID.
    """
    reason = None
    async with aclosing(contents(pieces)) as chunks:
        async for chunk, at_seconds in chunks:
            if "error" in chunk:
                raise _stream_error(chunk["error"])
            for choice in chunk["choices"]:
                for token in _tokens(choice, at_seconds):
                    yield token
                reason = choice["finish_reason"] or reason
            if usage := chunk.get("usage"):
                if reason not in ("stop", "length"):
                    raise nonsense(f"finish_reason {reason!r}")
                yield Finish(reason, usage["prompt_tokens"], usage["completion_tokens"])
                return
    raise nonsense("a stream without usage counts")


def _tokens(choice: dict[str, Any], at_seconds: float | None) -> list[Token]:
    text = choice["delta"].get("content") or ""
    ids = [int(step["token_id"]) for step in tokens_of(choice)]
    if not ids:
        return [Token(text, UNTOLD_ID, at_seconds)] if text else []
    return tokens_with_text(ids, text, at_seconds)


def _stream_error(error: dict[str, Any]) -> EdgewrightError:
    message = str(error.get("message"))
    if error.get("type") == "invalid_request_error":
        return InputError(message)
    return OutsideError(message, Reason.REASON_ENGINE_FAILED)
