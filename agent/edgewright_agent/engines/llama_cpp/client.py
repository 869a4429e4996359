"""llama-server's HTTP in the agent's terms.

Generation goes through its own /completion, which names the tokens; prompts are sent as tokens, so that they are
counted before they are read. OpenAI's routes are relayed as they are, but for what the server would get wrong
(`openai_fields`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.http.exchange import exchange, nonsense
from edgewright_agent.engines.http.openai_fields import (
    CHAT,
    MAX_TOKENS,
    ROUTES,
    WrongFieldError,
    json_reply,
)
from edgewright_agent.engines.http.request_checks import (
    BoundedQueue,
    check_one_input,
    check_request,
    check_sampling,
    context_exceeded,
)
from edgewright_agent.engines.http.special_tokens import SpecialTokens
from edgewright_agent.engines.llama_cpp import openai_fields, scores, token_ids
from edgewright_agent.engines.llama_cpp.completion import CompletionStream, completion_body, finish_of
from edgewright_agent.engines.protocol.launch import EngineLimits
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
    tokens_with_text,
)

COMPLETION = "/completion"


class LlamaClient:
    """One llama-server's HTTP. Raises what `Engine` says."""

    def __init__(self, socket: Path, model: str, tokenizer: Path, limits: EngineLimits) -> None:
        self._http = EngineClient(socket, model)
        self._socket = socket
        self._model = model
        self._context_tokens = limits.context_tokens
        self._queue = BoundedQueue(limits.concurrency)
        self._special = SpecialTokens.of(tokenizer)
        self._last_prompt: list[int] = [0]  # that the server still has in its cache
        self._scoring = asyncio.Lock()

    async def healthy(self) -> bool:
        """Whether the server answers 200: 503 while it loads the model."""
        return await self._http.healthy()

    async def heartbeat(self) -> None:
        """Lets the server read the last prompt's last token again, which leaves the rest of its cache as it is."""
        body = {"prompt": self._last_prompt, "n_predict": 1, "temperature": 0, "response_fields": ["stop"]}
        await self._http.post(COMPLETION, body)

    async def requests_together(self, slots: int, request_tokens: int) -> int | None:
        """Returns `slots`: the server is told at its start how many requests to batch."""
        return slots

    async def generate(
        self, request: GenerationRequest, client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then a Finish; an exact request's tokens come all at once."""
        check_request(request)
        check_sampling(request.temperature, request.top_p)
        with self._queue.place():
            prompt = await self._prompt(request)
            body = completion_body(request, prompt, self._room(len(prompt), request.max_tokens))
            self._last_prompt = prompt
            events = self._at_once(body) if request.exact else self._streamed(body)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def _streamed(self, body: dict[str, Any]) -> AsyncGenerator[Token | Finish, None]:
        stream = CompletionStream(self._pieces_of)
        async with (
            self._http.sending(COMPLETION, body | {"stream": True}) as reply,
            aclosing(stream.read(reply.pieces)) as events,
        ):
            async for event in events:
                yield event

    async def _at_once(self, body: dict[str, Any]) -> AsyncGenerator[Token | Finish, None]:
        answer = await self._http.post(COMPLETION, body)
        tokens = [int(token) for token in answer["tokens"]]
        for token in tokens_with_text(tokens, str(answer["content"])):
            yield token
        yield finish_of(answer, len(tokens))

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        """Returns one score per continuation; items of several callers take turns."""
        with self._queue.place():
            split = [await self._split(item) for item in items]
            for context, continuation in (pair for pairs in split for pair in pairs):
                self._room(len(context), len(continuation))
            async with self._scoring:
                letter = (await self._tokens_of("a", False))[-1]
                return [await scores.score_item(self._http, pairs, letter) for pairs in split]

    async def _split(self, item: ScoreItem) -> list[tuple[list[int], list[int]]]:
        return [await self._special.split(item.context, text, self._tokens_of) for text in item.continuations]

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Refuses: llama-server takes adapters as GGUF files at its start only."""
        raise RefusedError("The engine llama.cpp takes no adapters here.", Reason.REASON_ENGINE_UNAVAILABLE)

    @asynccontextmanager
    async def relay(self, method: str, route: str, body: bytes, client: str = "") -> AsyncIterator[Reply]:
        """See `Engine`. What the server would answer wrongly is refused here, and its answers are put right."""
        if method != "POST" or route not in ROUTES:
            async with exchange(self._socket, method, route, body) as reply:
                yield reply
            return
        try:
            fields = openai_fields.parse(route, body, self._model)
            prompt = await self._check_room(route, fields)
        except WrongFieldError as error:
            yield error.reply
            return
        if fields.get("return_token_ids"):
            async with self._with_ids(token_ids.native_body(fields, prompt)) as reply:
                yield reply
            return
        async with exchange(self._socket, method, route, json.dumps(fields).encode()) as reply:
            yield openai_fields.put_right(reply, route, fields)

    @asynccontextmanager
    async def _with_ids(self, body: dict[str, Any]) -> AsyncIterator[Reply]:
        """Gives the server's own answer, which names its tokens, in OpenAI's shape."""
        async with exchange(self._socket, "POST", COMPLETION, json.dumps(body).encode()) as reply:
            if reply.status != HTTPStatus.OK:
                yield reply
                return
            answer = json.loads(await reply.read())
        try:
            yield json_reply(HTTPStatus.OK, token_ids.completion_of(answer, self._model))
        except (KeyError, TypeError) as error:
            raise nonsense(f"a completion without {error}") from error

    async def _check_room(self, route: str, fields: dict[str, Any]) -> list[int]:
        """Returns the prompt's tokens, and sets how many may be written. Raises WrongFieldError if they don't fit."""
        prompt = await self._prompt_in(route, fields)
        asked = fields.get("max_completion_tokens") or fields.get("max_tokens") or 0
        try:
            room = self._room(len(prompt), asked)
        except InputError as error:
            raise WrongFieldError(str(error), "context_length_exceeded") from error
        self._last_prompt = prompt
        fields.pop("max_completion_tokens", None)
        # OpenAI's completions write 16 tokens if nobody says how many, chats as many as the context holds.
        fields["max_tokens"] = asked or (room if route == CHAT else min(room, MAX_TOKENS))
        return prompt

    async def _prompt_in(self, route: str, fields: dict[str, Any]) -> list[int]:
        if route == CHAT:
            return await self._chat_tokens(fields)
        prompt = fields["prompt"]
        return await self._text_tokens(prompt) if isinstance(prompt, str) else list(prompt)

    async def _chat_tokens(self, fields: dict[str, Any]) -> list[int]:
        async with exchange(self._socket, "POST", "/apply-template", json.dumps(fields).encode()) as reply:
            body = await reply.read()
        if reply.status != HTTPStatus.OK:
            raise WrongFieldError.of_server(reply.status, body)
        return await self._tokens_of(str(json.loads(body)["prompt"]), True)

    async def _prompt(self, request: GenerationRequest) -> list[int]:
        """Returns the prompt's tokens. Raises InputError unless there is one."""
        check_one_input(request)
        if request.prompt is not None:
            return await self._text_tokens(request.prompt)
        messages = [dict(message) for message in request.messages or ()]
        answer = await self._http.post("/apply-template", {"messages": messages})
        return await self._tokens_of(str(answer["prompt"]), True)

    def _room(self, prompt_tokens: int, more_tokens: int) -> int:
        """Returns how many tokens may be written: `more_tokens`, or for 0 all that the prompt leaves."""
        if prompt_tokens + max(1, more_tokens) > self._context_tokens:
            raise context_exceeded(prompt_tokens, max(1, more_tokens), self._context_tokens)
        return more_tokens or self._context_tokens - prompt_tokens

    async def _text_tokens(self, text: str) -> list[int]:
        return await self._tokens_of(text, self._special.may_add(text))

    async def _tokens_of(self, text: str, special: bool) -> list[int]:
        body = {"content": text, "add_special": special, "parse_special": True}
        answer = await self._http.post("/tokenize", body)
        return [int(token) for token in answer["tokens"]]

    async def _pieces_of(self, text: str) -> list[int]:
        """Returns the tokens that `text` is usually written with."""
        try:
            return await self._tokens_of(text, False)
        except OutsideError as error:
            raise nonsense(str(error)) from error
