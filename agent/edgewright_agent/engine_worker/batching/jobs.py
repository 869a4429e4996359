"""Requests as the scheduler sees them: generators that ask for logits and hand out results.

A job yields the tokens it wants put after `past` others and gets logits after each of them, or after the first few;
then it asks for the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgewright_agent.engine_worker.batching.pool import CacheRow
from edgewright_agent.engine_worker.model.backend import Logits, SamplingSettings, TokenScores
from edgewright_agent.engine_worker.model.grammar import Grammar
from edgewright_agent.engine_worker.model.logprobs import TokenLogprobs, token_logprobs
from edgewright_agent.engine_worker.model.sampling import draw


@dataclass(frozen=True)
class Feed:
    """What a job wants of the model."""

    past: int
    tokens: Sequence[int]
    decoding: bool = False  # one token of a generation, which others may join


@dataclass(frozen=True)
class GeneratedToken:
    """A generated token."""

    token: int
    finish_reason: str | None
    logprobs: TokenLogprobs | None
    at_seconds: float  # on the monotonic clock, which all processes of a machine share


Work = Generator[Feed, Logits, None]
UNREAD_MAX = 128  # results that a reader has not taken: its job is paused until it does


class Arrivals:
    """Results on their way to one reader in the event loop."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._news = asyncio.Event()

    @property
    def are_full(self) -> bool:
        """Whether the reader is so far behind that no more should come. May be asked in any thread."""
        return len(self._items) >= UNREAD_MAX

    def put(self, items: Sequence[Any]) -> None:
        """Adds results for the reader."""
        self._items += items
        self._news.set()

    async def take(self) -> list[Any]:
        """Returns everything that has arrived since the last call; waits for the first."""
        await self._news.wait()
        self._news.clear()
        taken, self._items = self._items, []
        return taken


@dataclass(eq=False)
class Job:
    """One sequence, from the queue to its last result."""

    prompt: Sequence[int]
    more_tokens: int  # that may follow the prompt
    adapter: Hashable
    begin: Callable[[Job], Work]
    client: str = ""  # who asks, and shares the engine with the other clients
    arrivals: Arrivals = field(default_factory=Arrivals)  # results, for the reader
    cancelled: bool = False  # set by the reader
    cached_tokens: int = 0  # of the prompt, that need not be read
    row: CacheRow | None = None
    out: list[Any] = field(default_factory=list)  # results of this turn
    has_results: bool = False  # of earlier turns


@dataclass(frozen=True)
class Generation:
    """What text to generate after the prompt."""

    max_tokens: int
    sampling: SamplingSettings
    stop_ids: frozenset[int]
    top_logprobs: int | None = None  # alternatives to report beside each token's own; None: report nothing
    grammar: Grammar | None = None

    def work(self, job: Job) -> Work:
        """Puts one GeneratedToken per token into `job.out`, until `max_tokens` or a token that ends the text."""
        rng = np.random.default_rng(self.sampling.seed)
        row = yield from _read(job.prompt, job.cached_tokens)
        for count in range(1, self.max_tokens + 1):
            allowed = row if self.grammar is None else self.grammar.masked(row)
            token = draw(allowed, self.sampling, rng)
            reason = self._finish_reason(token, count)
            logprobs = None if self.top_logprobs is None else token_logprobs(row, token, self.top_logprobs)
            job.out.append(GeneratedToken(token, reason, logprobs, time.monotonic()))
            if reason is not None:
                return
            row = (yield Feed(len(job.prompt) + count - 1, (token,), decoding=True))[0]

    def _finish_reason(self, token: int, count: int) -> str | None:
        if token in self.stop_ids or (self.grammar is not None and self.grammar.accept(token)):
            return "stop"
        return "length" if count == self.max_tokens else None


@dataclass(frozen=True)
class Scoring:
    """Which continuations to score after the prompt."""

    continuations: Sequence[Sequence[int]]

    def work(self, job: Job) -> Work:
        """Puts one TokenScores per continuation into `job.out`. Each continuation is read over the one before it."""
        first = (yield from _read(job.prompt, job.cached_tokens))[None]
        for continuation in self.continuations:
            total, greedy = _score_rows(first, continuation[:1])
            done = 1
            while done < len(continuation):
                rows = yield Feed(len(job.prompt) + done - 1, continuation[done - 1 : -1])
                more, still_greedy = _score_rows(rows, continuation[done : done + len(rows)])
                total, greedy, done = total + more, greedy and still_greedy, done + len(rows)
                del rows
            job.out.append(TokenScores(total, len(continuation), greedy))


def _read(prompt: Sequence[int], done: int) -> Generator[Feed, Logits, Logits]:
    """Reads the rest of the prompt; returns the logits of its last token.

    A slice's logits are freed before the next one is read: they are the largest part of what reading takes.
    """
    while True:
        rows = yield Feed(done, prompt[done:])
        done += len(rows)
        if done == len(prompt):
            last: Logits = rows[-1].copy()
            return last
        del rows


def _score_rows(rows: Logits, targets: Sequence[int]) -> tuple[float, bool]:
    """Returns the sum of log-softmax(rows[i])[targets[i]], and whether each target is its row's maximum."""
    if not targets:
        return 0.0, True
    highest = rows.max(axis=-1)
    chosen = rows[np.arange(len(targets)), list(targets)]
    normaliser = highest + np.log(np.exp(rows - highest[:, None]).sum(axis=-1))
    return float((chosen - normaliser).sum(dtype=np.float64)), bool((chosen >= highest).all())
