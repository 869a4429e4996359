"""From prompt tokens to text, step by step, and from texts to scores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from edgewright_agent.engine_worker.backend import Backend, InvalidRequestError, Text, TokenScores
from edgewright_agent.engine_worker.bodies import SamplingBody, ScoreItemBody
from edgewright_agent.engine_worker.stopping import StopScanner

# The event loop's turns from a closed connection to the cancelled handler: the socket is read, the transport
# closes, `receive` returns, the handler is cancelled, it runs.
_TURNS_TO_CANCEL = 5


@dataclass(frozen=True)
class Step:
    """One generated token and the text it makes certain; the last one says why it is the last."""

    token: int
    text: str
    finish_reason: Literal["stop", "length"] | None


async def breathe() -> None:
    """Let the event loop do its work: a model's step holds the interpreter lock throughout.

    For that reason the model runs in the event loop's own thread: a second thread would only add waiting.
    """
    for _ in range(_TURNS_TO_CANCEL):
        await asyncio.sleep(0)


async def steps(
    backend: Backend, prompt: Sequence[int], max_tokens: int, body: SamplingBody
) -> AsyncGenerator[Step, None]:
    """Generate until a stop string, the end of the text, or `max_tokens`."""
    decode, scanner, count = backend.text.decoder(), StopScanner(body.stop), 0
    with closing(backend.generate(prompt, max_tokens, body.sampling)) as tokens:  # type: ignore[type-var]
        for token in tokens:
            await breathe()
            if token is None:
                continue
            count += 1
            ended = token in backend.eos_ids and not body.ignore_eos
            text, stopped = scanner.feed("" if ended else decode(token))
            if stopped or ended:
                yield Step(token, text if stopped else text + scanner.flush(), "stop")
                return
            last = count == max_tokens
            yield Step(token, text + scanner.flush() if last else text, "length" if last else None)


async def scores(backend: Backend, items: Sequence[ScoreItemBody]) -> list[list[TokenScores]]:
    """Scores of every continuation; raises InvalidRequestError before the model runs."""
    split = [[split_tokens(backend.text, item.context, c) for c in item.continuations] for item in items]
    for pairs in split:
        for context, continuation in pairs:
            check_context(len(context), len(continuation), backend.context_tokens)
    return [await _score_item(backend, pairs) for pairs in split]


async def _score_item(backend: Backend, pairs: list[tuple[list[int], list[int]]]) -> list[TokenScores]:
    """Continuations of one context share its prefill: almost always all of them."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for index, (context, _) in enumerate(pairs):
        by_context.setdefault(tuple(context), []).append(index)
    result: dict[int, TokenScores] = {}
    for context_tokens, indices in by_context.items():
        waiting = iter(indices)
        for score in backend.score(context_tokens, [pairs[i][1] for i in indices]):
            await breathe()
            if score is not None:
                result[next(waiting)] = score
    return [result[index] for index in range(len(pairs))]


def split_tokens(text: Text, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of context and continuation, split as lm-evaluation-harness 0.4.13 does (`_encode_pair`).

    Trailing blanks of the context belong to the continuation. The continuation's tokens are those of the
    whole after as many as the context alone has. An empty context is the tokenizer's prefix token.
    """
    if not context:
        tokens = text.encode(continuation, special=False)
        return ([text.prefix_id], tokens) if tokens[0] != text.prefix_id else (tokens[:1], tokens[1:])
    kept = context.rstrip()
    if not kept:
        return split_tokens(text, "", context + continuation)
    whole = text.encode(context + continuation, special=True)
    head = text.encode(kept, special=True)
    return head, whole[len(head) :]


def check_context(prompt_tokens: int, more_tokens: int, context_tokens: int) -> None:
    """Raise InvalidRequestError (`context_length_exceeded`) if the sequence would not fit."""
    if prompt_tokens + more_tokens > context_tokens:
        raise InvalidRequestError(
            f"The prompt has {prompt_tokens} tokens and {more_tokens} more are asked for, together "
            f"{prompt_tokens + more_tokens}; the context holds {context_tokens}.",
            "context_length_exceeded",
        )
