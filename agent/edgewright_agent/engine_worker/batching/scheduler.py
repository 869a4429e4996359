"""Whose tokens the model works on next: requests begin in the order they came, and all that have begun advance.

A turn reads one slice of one prompt and then takes one step with every sequence that generates, so that a long prompt
delays the others by one slice at most. A sequence whose reader is behind takes no step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from edgewright_agent.engine_worker.batching.jobs import Feed, Job, Work
from edgewright_agent.engine_worker.batching.pool import SLICE_TOKENS_MIN, CacheRow, Pool
from edgewright_agent.engine_worker.batching.turns import Turns
from edgewright_agent.engine_worker.model.backend import Backend, Logits

# Tokens of a prompt that are read between two steps of others. More is faster for the prompt and slower for the others.
SLICE_TOKENS_BETWEEN_STEPS = 32
# A sequence with fewer tokens to come is not moved: a move costs a fraction of a step, and perhaps a kept prompt.
MOVING_TOKENS_MIN = 16


@dataclass(eq=False)
class _Sequence:
    """A job that has a row of the cache."""

    job: Job
    row: CacheRow
    work: Work
    feed: Feed

    @property
    def tokens_left(self) -> int:
        """The most tokens that can still come."""
        return len(self.job.prompt) + self.job.more_tokens - self.feed.past

    @property
    def is_paused(self) -> bool:
        """Whether it waits for its reader. A prompt is read all the same."""
        return self.feed.decoding and not self.job.cancelled and self.job.arrivals.are_full


class Scheduler:
    """Jobs that wait and jobs that have begun. To be used from one thread."""

    def __init__(self, backend: Backend, sequences_max: int, prompt_memory: Turns) -> None:
        self._backend = backend
        self._prompt_memory = prompt_memory
        self._pool = Pool(backend.layout, backend.pool_tokens, backend.context_tokens, backend.copy)
        self._sequences_max = sequences_max
        self._waiting: deque[Job] = deque()
        self._begun: list[_Sequence] = []  # in the order they began
        self._turns = 0
        self._has_news = (
            False  # since the last turn: a job, room for one, or what `look_again` was called for
        )

    @property
    def busy(self) -> bool:
        """Whether a turn would do anything."""
        return self._has_news or any(not sequence.is_paused for sequence in self._begun)

    def add(self, job: Job) -> None:
        """Puts the job at the end of the queue."""
        self._waiting.append(job)
        self._has_news = True

    def look_again(self) -> None:
        """Has the next turn see that a job is no longer paused, or cancelled."""
        self._has_news = True

    def turn(self) -> Iterator[tuple[Job, Exception | None]]:
        """Does a bounded piece of work. Yields jobs with new results in `out`, or that ended, with their error if any.

        A job whose `row` is None has ended.
        """
        self._has_news = False
        self._drop_cancelled()
        self._admit()
        reading = [sequence for sequence in self._begun if not sequence.feed.decoding]
        if reading:
            with self._prompt_memory:  # until the slice's logits are freed
                yield from self._run([self._next_to_read(reading)])
        batches = self._batches()
        if len(batches) > 1 and self._move_together(batches):
            batches = self._batches()
        for batch in batches:
            yield from self._run(batch)
        self._turns += 1

    def compute_for_nobody(self) -> None:
        """Lets the model read two tokens while nothing is to be done, and changes no kept prompt.

        Where paused sequences have the whole cache, it reads nothing: this thread does what it is asked all the same.
        """
        spare = self._pool.spare(SLICE_TOKENS_MIN)
        if spare is not None:
            self._backend.read(*spare, [0] * SLICE_TOKENS_MIN, None)

    def fail_all(self, error: Exception) -> Iterator[tuple[Job, Exception | None]]:
        """Ends everything with `error`, which no job expected."""
        for sequence in tuple(self._begun):
            self._end(sequence)
            yield sequence.job, error
        while self._waiting:
            yield self._waiting.popleft(), error

    def _drop_cancelled(self) -> None:
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        for sequence in [sequence for sequence in self._begun if sequence.job.cancelled]:
            self._end(sequence)

    def _admit(self) -> None:
        """Gives rows to those who wait, in order: nobody overtakes a job that needs more room."""
        while self._waiting and len(self._begun) < self._sequences_max:
            job = self._waiting[0]
            row = self._pool.take(len(job.prompt) + job.more_tokens, job.prompt, job.adapter)
            if row is None:
                return
            self._waiting.popleft()
            job.row, job.cached_tokens = row, len(row.tokens)
            work = job.begin(job)
            self._begun.append(_Sequence(job, row, work, next(work)))

    def _next_to_read(self, reading: Sequence[_Sequence]) -> _Sequence:
        """Returns by turns the one with the least left, for the sake of short prompts, and the one that came first."""
        if self._turns % 2:
            return reading[0]
        return min(reading, key=lambda sequence: len(sequence.feed.tokens))

    def _move_together(self, batches: Sequence[list[_Sequence]]) -> bool:
        """Moves one sequence beside others of its kind: eight in one step cost hardly more than one.

        Returns whether one was moved.
        """
        kinds: dict[tuple[int, Hashable], list[list[_Sequence]]] = {}
        for batch in batches:
            row = batch[0].row
            kinds.setdefault((row.place.width_tokens, row.adapter), []).append(batch)
        for alike in kinds.values():
            largest = max(alike, key=len)
            apart = [end for batch in alike if batch is not largest for end in (batch[0], batch[-1])]
            worth = [sequence for sequence in apart if sequence.tokens_left >= MOVING_TOKENS_MIN]
            neighbours = [sequence.row for sequence in largest]
            if any(self._pool.move_beside(one.row, neighbours, one.feed.past) for one in worth):
                return True
        return False

    def _batches(self) -> list[list[_Sequence]]:
        """Groups those that generate: side by side, with one width and one adapter."""
        decoding = sorted(
            (sequence for sequence in self._begun if sequence.feed.decoding and not sequence.is_paused),
            key=lambda sequence: sequence.row.place.start_tokens,
        )
        batches: list[list[_Sequence]] = []
        for sequence in decoding:
            last = batches[-1][-1].row if batches else None
            if last is not None and _adjacent(last, sequence.row):
                batches[-1].append(sequence)
            else:
                batches.append([sequence])
        return batches

    def _run(self, batch: list[_Sequence]) -> Iterator[tuple[Job, Exception | None]]:
        """Asks the model for what the batch wants, and hands it over."""
        try:
            rows = self._step(batch) if batch[0].feed.decoding else [self._read(batch[0])]
        except Exception as error:  # noqa: BLE001 - its requests are told whatever it is, and the next is served
            for sequence in batch:
                self._end(sequence, keep=False)
                yield sequence.job, error
            return
        for sequence, logits in zip(batch, rows, strict=True):
            yield from self._hand_over(sequence, logits)

    def _hand_over(self, sequence: _Sequence, logits: Logits) -> Iterator[tuple[Job, Exception | None]]:
        try:
            sequence.feed = sequence.work.send(logits)
        except StopIteration:
            self._end(sequence)
        except Exception as error:  # noqa: BLE001 - as above
            self._end(sequence)
            yield sequence.job, error
            return
        if sequence.job.out or sequence.job.row is None:
            yield sequence.job, None

    def _read(self, sequence: _Sequence) -> Logits:
        """Reads one slice; no slice of a longer text is a single token (see `SLICE_TOKENS_MIN`)."""
        feed, most = sequence.feed, self._backend.slice_tokens
        if any(other.feed.decoding for other in self._begun):
            most = min(most, SLICE_TOKENS_BETWEEN_STEPS)
        count = min(most, len(feed.tokens))
        if 0 < len(feed.tokens) - count < SLICE_TOKENS_MIN and count > SLICE_TOKENS_MIN:
            count -= 1
        tokens = feed.tokens[:count]
        logits = self._backend.read(sequence.row.place, feed.past, tokens, sequence.row.adapter)
        sequence.row.note_read(feed.past, tokens)
        return logits

    def _step(self, batch: Sequence[_Sequence]) -> list[Logits]:
        logits = self._backend.step(
            [sequence.row.place for sequence in batch],
            [sequence.feed.past for sequence in batch],
            [sequence.feed.tokens[0] for sequence in batch],
            batch[0].row.adapter,
        )
        for sequence in batch:
            sequence.row.note_read(sequence.feed.past, sequence.feed.tokens)
        return [logits[index : index + 1] for index in range(len(batch))]

    def _end(self, sequence: _Sequence, *, keep: bool = True) -> None:
        sequence.work.close()
        if not keep:  # what an interrupted run has written is unknown
            sequence.row.tokens.clear()
        self._pool.release(sequence.row)
        self._begun.remove(sequence)
        sequence.job.row = None
        self._has_news = bool(self._waiting)  # there may be room for the next


def _adjacent(one: CacheRow, other: CacheRow) -> bool:
    same = one.place.width_tokens == other.place.width_tokens and one.adapter == other.adapter
    return same and one.place.end_tokens == other.place.start_tokens
