"""From prompt tokens to text, step by step, and from texts to scores."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from edgewright_agent.engine_worker.backend import Backend, InvalidRequestError, Text, TokenScores
from edgewright_agent.engine_worker.batching.jobs import Drawn, Job, Scoring
from edgewright_agent.engine_worker.batching.model_thread import ModelThread
from edgewright_agent.engine_worker.batching.stopping import StopScanner
from edgewright_agent.engine_worker.http.bodies import ScoreItemBody
from edgewright_agent.engine_worker.model.logprobs import TokenLogprobs


@dataclass(frozen=True)
class Step:
    """One generated token and the text it makes certain; the last one says why it is the last."""

    token: int
    text: str
    finish_reason: str | None
    logprobs: TokenLogprobs | None  # None also for the token that ends a text, which is no part of it
    at_seconds: float  # on the monotonic clock


async def steps(
    model: ModelThread, job: Job, text: Text, stops: Sequence[str], eos_ids: frozenset[int]
) -> AsyncGenerator[list[Step], None]:
    """The texts of a generation's tokens as they come together, until it ends or a stop string does.

    `eos_ids` are no text.
    """
    decode, scanner = text.decoder(), StopScanner(stops)

    def step_of(drawn: Drawn) -> Step:
        ended = drawn.token in eos_ids
        certain, stopped = scanner.feed("" if ended else decode(drawn.token))
        reason = "stop" if stopped else drawn.finish_reason
        if reason is not None and not stopped:
            certain += scanner.flush()
        return Step(drawn.token, certain, reason, None if ended else drawn.logprobs, drawn.at_seconds)

    async with aclosing(model.results(job)) as results:
        async for several in results:
            made: list[Step] = []
            for drawn in several:
                made.append(step_of(drawn))
                if made[-1].finish_reason is not None:
                    break
            yield made
            if made[-1].finish_reason is not None:
                return


async def scores(
    model: ModelThread, backend: Backend, items: Sequence[ScoreItemBody]
) -> list[list[TokenScores]]:
    """Scores of every continuation; raises InvalidRequestError before the model runs."""
    split = [[split_tokens(backend.text, item.context, c) for c in item.continuations] for item in items]
    for pairs in split:
        for context, continuation in pairs:
            check_context(len(context), len(continuation), backend.context_tokens)
    return [await _score_item(model, backend, pairs) for pairs in split]


async def _score_item(
    model: ModelThread, backend: Backend, pairs: list[tuple[list[int], list[int]]]
) -> list[TokenScores]:
    """Continuations of one context share its prefill: almost always all of them."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for index, (context, _) in enumerate(pairs):
        by_context.setdefault(tuple(context), []).append(index)
    result: dict[int, TokenScores] = {}
    for context_tokens, indices in by_context.items():
        continuations = [pairs[index][1] for index in indices]
        longest = max(len(continuation) for continuation in continuations)
        job = Job(context_tokens, longest, backend.adapter, Scoring(continuations).work)
        async with aclosing(model.results(job)) as found:
            scored = [score async for several in found for score in several]
        result |= zip(indices, scored, strict=True)
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
