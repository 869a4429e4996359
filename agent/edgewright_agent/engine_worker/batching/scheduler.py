"""Whose tokens the model works on next, so that clients share its time and the KV cache.

The client that the model has worked for the least is next: with a slice of one of its prompts, or with a step of a
batch that it has a sequence in. It pays for that by the time it took; the others in the batch do not. So what is wide
or long, and shares its steps with nobody, gets fewer of them. Within a client all that has begun advances by turns, so
that a long prompt delays the others by one slice at most. A sequence whose reader is behind takes no step.

Where the cache has no room, the client that has held the least of it is next, and its requests in the order they came.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.batching.fair_shares import FairShares
from edgewright_agent.engine_worker.batching.jobs import Job
from edgewright_agent.engine_worker.batching.pool import SLICE_TOKENS_MIN, Pool
from edgewright_agent.engine_worker.batching.sequences import BegunSequence, batches, slices
from edgewright_agent.engine_worker.model.backend import Backend, Logits

# Tokens of a prompt that are read between two steps of others. More is faster for the prompt and slower for the others.
SLICE_TOKENS_BETWEEN_STEPS = 32
# A sequence with fewer tokens to come is not moved: a move costs a fraction of a step, and perhaps a kept prompt.
MOVING_TOKENS_MIN = 16


class Scheduler:
    """Jobs that wait and jobs that have begun. To be used from one thread."""

    def __init__(
        self,
        backend: Backend,
        sequences_max: int,
        prompt_memory: Turns,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._prompt_memory = prompt_memory
        self._pool = Pool(backend.layout, backend.pool_tokens, backend.context_tokens, backend.copy)
        self._sequences_max = sequences_max
        self._waiting: list[Job] = []  # in the order they came
        self._begun: list[BegunSequence] = []  # in the order they began
        self._turns = self._runs = 0
        self._time = FairShares()  # seconds of the model
        self._room = FairShares()  # tokens of the cache × seconds
        self._room_charged = clock()
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
        self._charge_room()
        self._drop_cancelled()
        self._admit()
        apart = batches(self._begun)
        if len(apart) > 1 and self._move_together(apart):
            apart = batches(self._begun)
        left = [*slices(self._begun, self._turns), *apart]
        while (client := self._next_client()) is not None:
            its = [batch for batch in left if any(one.job.client == client for one in batch)]
            if not its:
                break
            batch = min(its, key=lambda batch: min(one.last_run for one in batch))
            left.remove(batch)
            # A slice's turn lasts until its logits are freed.
            with contextlib.nullcontext() if batch[0].feed.decoding else self._prompt_memory:
                yield from self._run(batch, client)
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
            yield self._waiting.pop(0), error

    def _drop_cancelled(self) -> None:
        self._waiting = [job for job in self._waiting if not job.cancelled]
        for sequence in [sequence for sequence in self._begun if sequence.job.cancelled]:
            self._end(sequence)

    def _charge_room(self) -> None:
        """Charges each client for what it has held since the last turn, also while it was paused."""
        now = self._clock()
        seconds, self._room_charged = now - self._room_charged, now
        self._room.note_present([one.client for one in self._jobs()])
        for sequence in self._begun:
            self._room.charge(sequence.job.client, seconds * sequence.row.place.width_tokens)

    def _jobs(self) -> list[Job]:
        return [*(sequence.job for sequence in self._begun), *self._waiting]

    def _admit(self) -> None:
        """Gives rows to those who wait.

        Nobody overtakes the job that is next and needs more room, unless a sequence waits for its reader:
        nobody knows when that ends.
        """
        while self._waiting and len(self._begun) < self._sequences_max:
            firsts: dict[str, Job] = {}
            for job in self._waiting:
                firsts.setdefault(job.client, job)
            order = self._room.in_order(firsts)
            if not any(sequence.is_paused for sequence in self._begun):
                order = order[:1]
            if not any(self._begin(firsts[client]) for client in order):
                return

    def _begin(self, job: Job) -> bool:
        """Gives the job a row; returns whether there was one."""
        row = self._pool.take(len(job.prompt) + job.more_tokens, job.prompt, job.adapter)
        if row is None:
            return False
        self._waiting.remove(job)
        job.row, job.cached_tokens = row, len(row.tokens)
        work = job.begin(job)
        self._begun.append(BegunSequence(job, row, work, next(work)))
        return True

    def _next_client(self) -> str | None:
        """Returns the client that the model works for next; None if nobody has anything to compute."""
        clients = [sequence.job.client for sequence in self._begun if not sequence.is_paused]
        self._time.note_present(clients)
        return self._time.in_order(clients)[0] if clients else None

    def _move_together(self, apart: Sequence[list[BegunSequence]]) -> bool:
        """Moves one sequence beside others of its kind: eight in one step cost hardly more than one.

        Returns whether one was moved.
        """
        kinds: dict[tuple[int, Hashable], list[list[BegunSequence]]] = {}
        for batch in apart:
            row = batch[0].row
            kinds.setdefault((row.place.width_tokens, row.adapter), []).append(batch)
        for alike in kinds.values():
            largest = max(alike, key=len)
            ends = [end for batch in alike if batch is not largest for end in (batch[0], batch[-1])]
            worth = [sequence for sequence in ends if sequence.tokens_left >= MOVING_TOKENS_MIN]
            neighbours = [sequence.row for sequence in largest]
            if any(self._pool.move_beside(one.row, neighbours, one.feed.past) for one in worth):
                return True
        return False

    def _run(self, batch: list[BegunSequence], payer: str) -> Iterator[tuple[Job, Exception | None]]:
        """Asks the model for what the batch wants, at the cost of one client, and hands it over."""
        self._runs += 1
        try:
            rows = self._computed(batch, payer)
        except Exception as error:  # noqa: BLE001 - its requests are told whatever it is, and the next is served
            for sequence in batch:
                self._end(sequence, keep=False)
                yield sequence.job, error
            return
        for sequence, logits in zip(batch, rows, strict=True):
            sequence.last_run = self._runs
            yield from self._hand_over(sequence, logits)

    def _computed(self, batch: list[BegunSequence], payer: str) -> list[Logits]:
        began = self._clock()
        try:
            return self._step(batch) if batch[0].feed.decoding else [self._read(batch[0])]
        finally:
            self._time.charge(payer, self._clock() - began)

    def _hand_over(self, sequence: BegunSequence, logits: Logits) -> Iterator[tuple[Job, Exception | None]]:
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

    def _read(self, sequence: BegunSequence) -> Logits:
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

    def _step(self, batch: Sequence[BegunSequence]) -> list[Logits]:
        logits = self._backend.step(
            [sequence.row.place for sequence in batch],
            [sequence.feed.past for sequence in batch],
            [sequence.feed.tokens[0] for sequence in batch],
            batch[0].row.adapter,
        )
        for sequence in batch:
            sequence.row.note_read(sequence.feed.past, sequence.feed.tokens)
        return [logits[index : index + 1] for index in range(len(batch))]

    def _end(self, sequence: BegunSequence, *, keep: bool = True) -> None:
        sequence.work.close()
        if not keep:  # what an interrupted run has written is unknown
            sequence.row.tokens.clear()
        self._pool.release(sequence.row)
        self._begun.remove(sequence)
        sequence.job.row = None
        self._has_news = bool(self._waiting)  # there may be room for the next
