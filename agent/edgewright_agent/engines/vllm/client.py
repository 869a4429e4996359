"""vLLM's HTTP where it differs from the worker's: scores, and what the worker refuses by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from pathlib import Path
from typing import Any

from edgewright.errors import BusyError, InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.http.client import EngineClient, completion
from edgewright_agent.engines.http.exchange import nonsense
from edgewright_agent.engines.protocol.launch import EngineLimits
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
)

WAITING_MAX = 16  # vLLM's own queue has no end
STOPS_MAX = 8
ROLES = ("system", "user", "assistant")
SEEDS = 2**64
CONTEXT_ERRORS = ("maximum context length", "max_model_len", "maximum model length")


class VllmClient:
    """One vLLM's HTTP. Raises what `Engine` says."""

    def __init__(self, socket: Path, model: str, tokenizer: Path, limits: EngineLimits) -> None:
        self._http = EngineClient(socket, model)
        self._model = model
        self._context_tokens = limits.context_tokens
        self._slots = limits.concurrency + WAITING_MAX
        self._bos, self._eos = special_tokens(tokenizer)

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

    def relay(self, method: str, route: str, body: bytes) -> AbstractAsyncContextManager[Reply]:
        """See `Engine`."""
        return self._http.relay(method, route, body)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then a Finish."""
        check_request(request)
        route, body = completion(request, self._model)
        body["seed"] = _signed(request.seed)
        if request.prompt is not None:
            body["add_special_tokens"] = self._lacks_bos(request.prompt)
        with self._slot():
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

    async def score(self, items: Sequence[ScoreItem]) -> list[list[ContinuationScore]]:
        """Returns one score per continuation, from the log-probabilities of a prompt's own tokens."""
        with self._slot():
            split = [await self._split_all(item) for item in items]
            for context, continuation in (pair for pairs in split for pair in pairs):
                if (
                    len(context) + len(continuation) >= self._context_tokens
                ):  # vLLM always writes one token more
                    raise context_exceeded(len(context), len(continuation) + 1, self._context_tokens)
            return [await self._scores(pairs) for pairs in split]

    async def _split_all(self, item: ScoreItem) -> list[tuple[list[int], list[int]]]:
        return [await self._split(item.context, text) for text in item.continuations]

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Refuses: the memory of vLLM's LoRA slots would have to be in the budget, and is not."""
        raise RefusedError("The engine vLLM takes no adapters here.", Reason.REASON_ENGINE_UNAVAILABLE)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if self._slots == 0:
            raise BusyError("The engine's queue is full; try again soon.", Reason.REASON_OVERLOADED)
        self._slots -= 1
        try:
            yield
        finally:
            self._slots += 1

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

    async def _split(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Splits as the worker's `split_tokens`, which says why."""
        if not context.rstrip():
            tokens = await self._tokens(context + continuation, special=False)
            prefix = (await self._tokens(self._bos or self._eos, special=False))[0]
            return ([prefix], tokens) if tokens[0] != prefix else (tokens[:1], tokens[1:])
        kept, whole = context.rstrip(), context + continuation
        head = await self._tokens(kept, special=self._lacks_bos(kept))
        return head, (await self._tokens(whole, special=self._lacks_bos(whole)))[len(head) :]

    async def _tokens(self, text: str, *, special: bool) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": special}
        tokens: list[int] = (await self._http.post("/tokenize", body))["tokens"]
        return tokens

    async def _prompt_tokens(self, request: GenerationRequest) -> int:
        if request.messages is None:
            prompt = request.prompt or ""
            return len(await self._tokens(prompt, special=self._lacks_bos(prompt)))
        body = {"model": self._model, "messages": [dict(message) for message in request.messages]}
        return int((await self._http.post("/tokenize", body))["count"])

    def _lacks_bos(self, text: str) -> bool:
        """Whether the tokenizer may add its BOS: a text that begins with it does not get another."""
        return not (self._bos and text.startswith(self._bos))


def special_tokens(tokenizer: Path) -> tuple[str, str]:
    """Returns BOS and EOS as text, "" where the tokenizer has none. It spells them as text or as objects."""
    config = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    found = (config.get(name) or "" for name in ("bos_token", "eos_token"))
    bos, eos = (token["content"] if isinstance(token, dict) else token for token in found)
    return bos, eos


def check_request(request: GenerationRequest) -> None:
    """Raises InputError for what vLLM would accept and the other engines don't."""
    if request.prompt == "" or request.messages == []:
        raise InputError("The prompt is empty; give a prompt or at least one message.")
    if request.max_tokens < 0:
        raise InputError(f"max_tokens is {request.max_tokens}; it must be 0 or more.")
    if len(request.stop) > STOPS_MAX or "" in request.stop:
        raise InputError(f"{len(request.stop)} stop strings; at most {STOPS_MAX}, none of them empty.")
    strange = [role for message in request.messages or () if (role := message.get("role")) not in ROLES]
    if strange:
        raise InputError(f"There is no role {strange[0]!r}; there are {', '.join(ROLES)}.")


def context_exceeded(prompt_tokens: int, more_tokens: int, context_tokens: int) -> InputError:
    """Returns the error that the worker raises, in its words."""
    return InputError(
        f"The prompt has {prompt_tokens} tokens and {more_tokens} more are asked for, together "
        f"{prompt_tokens + more_tokens}; the context holds {context_tokens}.",
        Reason.REASON_CONTEXT_EXCEEDED,
    )


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
