"""One request to llama-server's /completion, and the tokens in its stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from edgewright.errors import InputError, OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.http.events import contents
from edgewright_agent.engines.http.exchange import nonsense
from edgewright_agent.engines.protocol.requests import (
    UNTOLD_ID,
    Finish,
    GenerationRequest,
    Token,
    tokens_with_text,
)

SEEDS = 2**32  # llama.cpp's seeds have 32 bits
RANDOM_SEED = SEEDS - 1  # which it takes for "another one each time"
REASONS: dict[str, str] = {"eos": "stop", "word": "stop", "limit": "length"}


def completion_body(request: GenerationRequest, prompt: Sequence[int], max_tokens: int) -> dict[str, Any]:
    """Returns the body of a request for at most `max_tokens` tokens after the tokens of `prompt`."""
    return {
        "prompt": list(prompt),
        "n_predict": max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": RANDOM_SEED if request.seed is None else folded(request.seed),
        "stop": list(request.stop),
        "ignore_eos": request.ignore_eos,
        "return_tokens": True,
        "cache_prompt": True,
        "response_fields": ["content", "tokens", "stop_type", "tokens_predicted", "tokens_evaluated"],
    }


def folded(seed: int) -> int:
    """Returns 32 bits of a seed of 64, and never the one that means none."""
    return ((seed >> 32) ^ seed) % SEEDS % RANDOM_SEED


def finish_of(answer: dict[str, Any], generated_tokens: int) -> Finish:
    """Returns why and after how many tokens a completion ended."""
    reason = REASONS.get(str(answer["stop_type"]))
    if reason not in ("stop", "length"):
        raise nonsense(f"stop_type {answer['stop_type']!r}")
    return Finish("stop" if reason == "stop" else "length", int(answer["tokens_evaluated"]), generated_tokens)


class CompletionStream:
    """Reads one stream.

    The server sends nothing for a token that ends inside a character: the event that completes the character counts
    it, and names its own token only. The others are found by tokenizing the event's text anew; where that does not
    give as many tokens, their ids are UNTOLD_ID.
    """

    def __init__(self, tokens_of: Callable[[str], Awaitable[list[int]]]) -> None:
        self._tokens_of = tokens_of
        self._count = 0

    async def read(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[Token | Finish, None]:
        """Yields the tokens as they come, then the Finish."""
        async with aclosing(contents(pieces)) as chunks:
            async for chunk, at_seconds in chunks:
                if "error" in chunk:
                    raise _stream_error(chunk["error"])
                for token in await self._tokens_in(chunk, at_seconds):
                    self._count += 1
                    yield token
                if "stop_type" in chunk:
                    yield finish_of(chunk, self._count)
                    return
        raise nonsense("a stream without an end")

    async def _tokens_in(self, chunk: dict[str, Any], at_seconds: float | None) -> list[Token]:
        ids, text = [int(token) for token in chunk.get("tokens") or ()], str(chunk["content"])
        lost = int(chunk["tokens_predicted"]) - self._count - len(ids)
        if lost > 0:
            written = await self._tokens_of(text) if text and ids else []
            agrees = len(written) == lost + len(ids) and written[lost:] == ids
            ids = written if agrees else [UNTOLD_ID] * lost + ids
        return tokens_with_text(ids, text, at_seconds)


def _stream_error(error: dict[str, Any]) -> InputError | OutsideError:
    message = str(error.get("message"))
    if int(error.get("code", 500)) < 500:
        return InputError(message)
    return OutsideError(message, Reason.REASON_ENGINE_FAILED)
