"""Sequences that have begun, and which of them the model can compute at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgewright_agent.engine_worker.batching.jobs import Feed, Job, Work
from edgewright_agent.engine_worker.batching.pool import CacheRow


@dataclass(eq=False)
class BegunSequence:
    """A job that has a row of the cache."""

    job: Job
    row: CacheRow
    work: Work
    feed: Feed
    last_run: int = 0  # the scheduler's count of runs then

    @property
    def tokens_left(self) -> int:
        """The most tokens that can still come."""
        return len(self.job.prompt) + self.job.more_tokens - self.feed.past

    @property
    def is_paused(self) -> bool:
        """Whether it waits for its reader. A prompt is read all the same."""
        return self.feed.decoding and not self.job.cancelled and self.job.arrivals.are_full


def slices(begun: Sequence[BegunSequence], turn: int) -> Iterator[list[BegunSequence]]:
    """Yields one prompt of each client, of which a slice is read.

    By turns it is the one with the least left, for the sake of short prompts, and the one that came first.
    """
    reading: dict[str, list[BegunSequence]] = {}
    for sequence in begun:
        if not sequence.feed.decoding:
            reading.setdefault(sequence.job.client, []).append(sequence)
    for its in reading.values():
        yield [its[0] if turn % 2 else min(its, key=lambda one: len(one.feed.tokens))]


def batches(begun: Sequence[BegunSequence]) -> list[list[BegunSequence]]:
    """Groups those that generate: side by side, with one width and one adapter."""
    decoding = sorted(
        (sequence for sequence in begun if sequence.feed.decoding and not sequence.is_paused),
        key=lambda sequence: sequence.row.place.start_tokens,
    )
    grouped: list[list[BegunSequence]] = []
    for sequence in decoding:
        last = grouped[-1][-1].row if grouped else None
        if last is not None and _adjacent(last, sequence.row):
            grouped[-1].append(sequence)
        else:
            grouped.append([sequence])
    return grouped


def _adjacent(one: CacheRow, other: CacheRow) -> bool:
    same = one.place.width_tokens == other.place.width_tokens and one.adapter == other.adapter
    return same and one.place.end_tokens == other.place.start_tokens
