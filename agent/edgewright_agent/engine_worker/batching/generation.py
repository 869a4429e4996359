"""From prompt tokens to text, step by step, and from texts to scores."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from edgewright_agent.engine_worker.batching.jobs import GeneratedToken, Job, Scoring
from edgewright_agent.engine_worker.batching.model_thread import ModelThread
from edgewright_agent.engine_worker.model.backend import Backend, Text, TokenScores
from edgewright_agent.engine_worker.model.logprobs import TokenLogprobs


@dataclass(frozen=True)
class Step:
    """One generated token and the text that it completes; the last step says why it is the last."""

    token: int
    text: str
    finish_reason: str | None
    logprobs: TokenLogprobs | None  # None also for the token that ends a text, which is no part of it
    at_seconds: float  # when the token was computed, on the monotonic clock


class StopScanner:
    """Passes text on until a stop string appears in it; holds back what may still become one.

    The stop string itself is not passed on.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Returns the text that can no longer be part of a stop string, and whether one was found."""
        self._held += text
        ends = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:  # the first to be complete, so that the cut does not depend on how the text was split
            return self._held[: min(ends)[1]], True
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return certain, False

    def flush(self) -> str:
        """Returns what was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)


async def steps(
    model: ModelThread, job: Job, text: Text, stops: Sequence[str], eos_ids: frozenset[int]
) -> AsyncGenerator[list[Step], None]:
    """Yields the steps of a generation, those together that come together, until it ends or a stop string appears.

    `eos_ids` are no text.
    """
    decode, scanner = text.decoder(), StopScanner(stops)

    def step_of(generated: GeneratedToken) -> Step:
        ended = generated.token in eos_ids
        certain, stopped = scanner.feed("" if ended else decode(generated.token))
        reason = "stop" if stopped else generated.finish_reason
        if reason is not None and not stopped:
            certain += scanner.flush()
        logprobs = None if ended else generated.logprobs
        return Step(generated.token, certain, reason, logprobs, generated.at_seconds)

    async with aclosing(model.results(job)) as results:
        async for tokens in results:
            made: list[Step] = []
            for token in tokens:
                made.append(step_of(token))
                if made[-1].finish_reason is not None:
                    break
            yield made
            if made[-1].finish_reason is not None:
                return


async def scores(
    model: ModelThread,
    backend: Backend,
    items: Sequence[list[tuple[list[int], list[int]]]],
    client: str = "",
) -> list[list[TokenScores]]:
    """Returns the scores of every continuation, from the tokens of each with those of its context."""
    return [await _score_item(model, backend, pairs, client) for pairs in items]


async def _score_item(
    model: ModelThread, backend: Backend, pairs: list[tuple[list[int], list[int]]], client: str
) -> list[TokenScores]:
    """Reads each context once for all its continuations. Almost always the pairs of an item share one."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for index, (context, _) in enumerate(pairs):
        by_context.setdefault(tuple(context), []).append(index)
    result: dict[int, TokenScores] = {}
    for context_tokens, indices in by_context.items():
        continuations = [pairs[index][1] for index in indices]
        longest = max(len(continuation) for continuation in continuations)
        job = Job(context_tokens, longest, backend.adapter, Scoring(continuations).work, client)
        async with aclosing(model.results(job)) as arrivals:
            scored = [score async for scores in arrivals for score in scores]
        result |= zip(indices, scored, strict=True)
    return [result[index] for index in range(len(pairs))]
