"""vLLM's HTTP where it differs from the worker's: scores, and what the worker refuses by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

from edgewright.errors import InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.http.client import EngineClient, completion
from edgewright_agent.engines.http.exchange import nonsense
from edgewright_agent.engines.http.request_checks import BoundedQueue, check_request, context_exceeded
from edgewright_agent.engines.http.special_tokens import SpecialTokens
from edgewright_agent.engines.protocol.launch import EngineLimits
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
)

SEEDS = 2**64
CONTEXT_ERRORS = ("maximum context length", "max_model_len", "maximum model length")


class VllmClient:
    """One vLLM's HTTP. Raises what `Engine` says."""

    def __init__(self, socket: Path, model: str, tokenizer: Path, limits: EngineLimits) -> None:
        self._http = EngineClient(socket, model)
        self._model = model
        self._context_tokens = limits.context_tokens
        self._queue = BoundedQueue(limits.concurrency)
        self._special = SpecialTokens.of(tokenizer)

    async def heartbeat(self) -> None:
        """Lets vLLM generate one token, in turn with the requests that it has. Raises OutsideError."""
        body = {"model": self._model, "prompt": [0], "max_tokens": 1, "temperature": 0}
        await self._http.post("/v1/completions", body)

    async def requests_together(self, slots: int, request_tokens: int) -> int | None:
        """Returns `slots`: vLLM is told at its start how many requests to batch."""
        return slots

    async def healthy(self) -> bool:
        """Whether the engine answers 200: 503 if one of its processes has ended."""
        return await self._http.healthy()

    def relay(
        self, method: str, route: str, body: bytes, client: str = ""
    ) -> AbstractAsyncContextManager[Reply]:
        """See `Engine`."""
        return self._http.relay(method, route, body)

    async def generate(
        self, request: GenerationRequest, client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then a Finish."""
        check_request(request)
        route, body = completion(request, self._model)
        body["seed"] = _signed(request.seed)
        if request.prompt is not None:
            body["add_special_tokens"] = self._special.may_add(request.prompt)
        with self._queue.place():
            if not request.max_tokens:  # without a number vLLM writes 16 tokens
                body["max_tokens"] = await self._room_after(request)
            try:
                async with aclosing(self._http.stream(route, body)) as events:
                    async for event in events:
                        yield event
            except InputError as error:
                if not any(words in str(error) for words in CONTEXT_ERRORS):
                    raise
                raise context_exceeded(
                    await self._prompt_tokens(request), request.max_tokens or 1, self._context_tokens
                ) from error

    async def _room_after(self, request: GenerationRequest) -> int:
        """Returns how many tokens of the context the prompt leaves."""
        prompt_tokens = await self._prompt_tokens(request)
        if prompt_tokens >= self._context_tokens:
            raise context_exceeded(prompt_tokens, 1, self._context_tokens)
        return self._context_tokens - prompt_tokens

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        """Returns one score per continuation, from the log-probabilities of a prompt's own tokens."""
        with self._queue.place():
            split = [await self._split_all(item) for item in items]
            for context, continuation in (pair for pairs in split for pair in pairs):
                if (
                    len(context) + len(continuation) >= self._context_tokens
                ):  # vLLM always writes one token more
                    raise context_exceeded(len(context), len(continuation) + 1, self._context_tokens)
            return [await self._scores(pairs) for pairs in split]

    async def _split_all(self, item: ScoreItem) -> list[tuple[list[int], list[int]]]:
        return [await self._special.split(item.context, text, self._tokens) for text in item.continuations]

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Refuses: the memory of vLLM's LoRA slots would have to be in the budget, and is not."""
        raise RefusedError("The engine vLLM takes no adapters here.", Reason.REASON_ENGINE_UNAVAILABLE)

    async def _scores(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[ContinuationScore]:
        """Returns the scores of one item, whose sequences vLLM batches."""
        prompts = [context + continuation for context, continuation in pairs]
        body = {
            "model": self._model,
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        answer = await self._http.post("/v1/completions", body)
        try:
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            return [
                _score(choice["prompt_logprobs"][len(context) :], continuation)
                for choice, (context, continuation) in zip(choices, pairs, strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise nonsense(f"scores without {error}") from error

    async def _tokens(self, text: str, special: bool) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": special}
        tokens: list[int] = (await self._http.post("/tokenize", body))["tokens"]
        return tokens

    async def _prompt_tokens(self, request: GenerationRequest) -> int:
        if request.messages is None:
            prompt = request.prompt or ""
            return len(await self._tokens(prompt, self._special.may_add(prompt)))
        body = {"model": self._model, "messages": [dict(message) for message in request.messages]}
        return int((await self._http.post("/tokenize", body))["count"])


def _score(entries: Sequence[dict[str, Any]], tokens: Sequence[int]) -> ContinuationScore:
    """Returns the score by vLLM's entry of each position, which has the token's log-probability and rank."""
    found = [entry[str(token)] for entry, token in zip(entries, tokens, strict=True)]
    total = sum(float(each["logprob"]) for each in found)
    return ContinuationScore(total, len(tokens), all(each["rank"] == 1 for each in found))


def _signed(seed: int | None) -> int | None:
    """Returns the same 64 bits as a signed number, which vLLM takes seeds as."""
    if seed is None:
        return None
    folded = seed % SEEDS
    return folded - SEEDS if folded >= SEEDS // 2 else folded
