"""Whose tokens the model works on next: requests that came first begin first, and all that began go on together.

A turn reads one slice of one prompt and then takes one step with every sequence that generates, so that a long prompt
holds up nobody for longer than a slice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from edgewright_agent.engine_worker.backend import Backend, Logits
from edgewright_agent.engine_worker.batching.jobs import Feed, Job, Work
from edgewright_agent.engine_worker.batching.pool import SLICE_TOKENS_MIN, CacheRow, Pool

# Of a prompt, read between two steps of others. Larger is faster for the prompt and slower for the others.
SLICE_TOKENS_BETWEEN_STEPS = 32
# To come, for a sequence to be moved: it costs a fraction of a step, and perhaps the prompt that is kept there.
MOVING_TOKENS_MIN = 16


@dataclass(eq=False)
class _Begun:
    """A job with a row."""

    job: Job
    row: CacheRow
    work: Work
    feed: Feed

    @property
    def tokens_left(self) -> int:
        """At most so many are still to come."""
        return len(self.job.prompt) + self.job.more_tokens - self.feed.past


class Scheduler:
    """Jobs waiting and jobs begun. To be used from one thread."""

    def __init__(self, backend: Backend, sequences_max: int) -> None:
        self._backend = backend
        self._pool = Pool(backend.pool_tokens, backend.context_tokens, backend.copy)
        self._sequences_max = sequences_max
        self._waiting: deque[Job] = deque()
        self._begun: list[_Begun] = []  # in the order they began
        self._turns = 0

    @property
    def busy(self) -> bool:
        """Whether a turn would do anything."""
        return bool(self._waiting or self._begun)

    def add(self, job: Job) -> None:
        """Puts the job at the end of the queue."""
        self._waiting.append(job)

    def turn(self) -> Iterator[tuple[Job, Exception | None]]:
        """Does a bounded piece of work. Yields jobs with new results in `out`, or that ended, with their error if any.

        A job whose `row` is None has ended.
        """
        self._drop_cancelled()
        self._admit()
        reading = [begun for begun in self._begun if not begun.feed.decoding]
        if reading:
            yield from self._run([self._next_to_read(reading)])
        batches = self._batches()
        if len(batches) > 1 and self._close_up(batches):
            batches = self._batches()
        for batch in batches:
            yield from self._run(batch)
        self._turns += 1

    def fail_all(self, error: Exception) -> Iterator[tuple[Job, Exception | None]]:
        """Ends everything, as after an error nobody foresaw."""
        for begun in tuple(self._begun):
            self._end(begun)
            yield begun.job, error
        while self._waiting:
            yield self._waiting.popleft(), error

    def _drop_cancelled(self) -> None:
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        for begun in [begun for begun in self._begun if begun.job.cancelled]:
            self._end(begun)

    def _admit(self) -> None:
        """Gives rows to those who wait, in order: nobody overtakes one that needs more room."""
        while self._waiting and len(self._begun) < self._sequences_max:
            job = self._waiting[0]
            row = self._pool.take(len(job.prompt) + job.more_tokens, job.prompt, job.adapter)
            if row is None:
                return
            self._waiting.popleft()
            job.row, job.cached_tokens = row, len(row.tokens)
            work = job.begin(job)
            self._begun.append(_Begun(job, row, work, next(work)))

    def _next_to_read(self, reading: Sequence[_Begun]) -> _Begun:
        """By turns the one with the least left, so that short prompts are soon read, and the one that came first."""
        if self._turns % 2:
            return reading[0]
        return min(reading, key=lambda begun: len(begun.feed.tokens))

    def _close_up(self, batches: Sequence[list[_Begun]]) -> bool:
        """Moves one sequence beside its like where they lie apart: eight in a step cost hardly more than one.

        Whether one was moved.
        """
        kinds: dict[tuple[int, Hashable], list[list[_Begun]]] = {}
        for batch in batches:
            row = batch[0].row
            kinds.setdefault((row.place.width_tokens, row.adapter), []).append(batch)
        for alike in kinds.values():
            largest = max(alike, key=len)
            apart = [begun for batch in alike if batch is not largest for begun in (batch[0], batch[-1])]
            worth = [begun for begun in apart if begun.tokens_left >= MOVING_TOKENS_MIN]
            neighbours = [begun.row for begun in largest]
            if any(self._pool.move_beside(begun.row, neighbours, begun.feed.past) for begun in worth):
                return True
        return False

    def _batches(self) -> list[list[_Begun]]:
        """Those that generate, side by side with one width and one adapter."""
        decoding = sorted(
            (begun for begun in self._begun if begun.feed.decoding), key=lambda b: b.row.place.start_tokens
        )
        batches: list[list[_Begun]] = []
        for begun in decoding:
            last = batches[-1][-1].row if batches else None
            if last is not None and _adjacent(last, begun.row):
                batches[-1].append(begun)
            else:
                batches.append([begun])
        return batches

    def _run(self, batch: list[_Begun]) -> Iterator[tuple[Job, Exception | None]]:
        """Asks the model for what the batch wants, and hands it over."""
        try:
            rows = self._step(batch) if batch[0].feed.decoding else [self._read(batch[0])]
        except Exception as error:  # noqa: BLE001 - whatever it is, its requests hear of it, and the next is served
            for begun in batch:
                self._end(begun, keep=False)
                yield begun.job, error
            return
        for begun, logits in zip(batch, rows, strict=True):
            yield from self._hand_over(begun, logits)

    def _hand_over(self, begun: _Begun, logits: Logits) -> Iterator[tuple[Job, Exception | None]]:
        try:
            begun.feed = begun.work.send(logits)
        except StopIteration:
            self._end(begun)
        except Exception as error:  # noqa: BLE001 - as above
            self._end(begun)
            yield begun.job, error
            return
        if begun.job.out or begun.job.row is None:
            yield begun.job, None

    def _read(self, begun: _Begun) -> Logits:
        """One slice; no slice of a longer text is a single token (see `SLICE_TOKENS_MIN`)."""
        feed, most = begun.feed, self._backend.slice_tokens
        if any(other.feed.decoding for other in self._begun):
            most = min(most, SLICE_TOKENS_BETWEEN_STEPS)
        count = min(most, len(feed.tokens))
        if 0 < len(feed.tokens) - count < SLICE_TOKENS_MIN and count > SLICE_TOKENS_MIN:
            count -= 1
        tokens = feed.tokens[:count]
        logits = self._backend.read(begun.row.place, feed.past, tokens, begun.row.adapter)
        begun.row.note_read(feed.past, tokens)
        return logits

    def _step(self, batch: Sequence[_Begun]) -> list[Logits]:
        logits = self._backend.step(
            [begun.row.place for begun in batch],
            [begun.feed.past for begun in batch],
            [begun.feed.tokens[0] for begun in batch],
            batch[0].row.adapter,
        )
        for begun in batch:
            begun.row.note_read(begun.feed.past, begun.feed.tokens)
        return [logits[index : index + 1] for index in range(len(batch))]

    def _end(self, begun: _Begun, *, keep: bool = True) -> None:
        begun.work.close()
        if not keep:  # what an interrupted run has written is unknown
            begun.row.tokens.clear()
        self._pool.release(begun.row)
        self._begun.remove(begun)
        begun.job.row = None


def _adjacent(one: CacheRow, other: CacheRow) -> bool:
    same = one.place.width_tokens == other.place.width_tokens and one.adapter == other.adapter
    return same and one.place.end_tokens == other.place.start_tokens
