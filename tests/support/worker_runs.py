"""The worker's scheduler on a backend in this process, without its thread and HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.batching.jobs import Generation, Job, Scoring
from edgewright_agent.engine_worker.batching.scheduler import Scheduler
from edgewright_agent.engine_worker.model.backend import Backend, SamplingSettings, TokenScores

SEQUENCES_MAX = 8
_schedulers: dict[Backend, Scheduler] = {}  # one knows what its backend remembers


def generation(
    backend: Backend,
    prompt: Sequence[int],
    max_tokens: int,
    sampling: SamplingSettings | None = None,
    **more: Any,
) -> Job:
    """A job that goes on past the end-of-sequence token."""
    work = Generation(max_tokens, sampling or SamplingSettings(), frozenset(), **more).work
    return Job(prompt, max_tokens, backend.adapter, work)


def scoring(backend: Backend, context: Sequence[int], continuations: Sequence[Sequence[int]]) -> Job:
    """A job that scores the continuations."""
    longest = max(len(continuation) for continuation in continuations)
    return Job(context, longest, backend.adapter, Scoring(continuations).work)


def scheduler(backend: Backend, *jobs: Job) -> Scheduler:
    """The backend's own, with those jobs in its queue."""
    made = _schedulers.get(backend) or _schedulers.setdefault(
        backend, Scheduler(backend, SEQUENCES_MAX, Turns())
    )
    for job in jobs:
        made.add(job)
    return made


def turns(made: Scheduler) -> Iterator[None]:
    """Goes on until nothing is left to do, raising the first error."""
    while made.busy:
        for _, error in made.turn():
            if error is not None:
                raise error
        yield


def run(backend: Backend, *jobs: Job) -> None:
    """All of them to their end, beside each other; their results are in `out`."""
    for _ in turns(scheduler(backend, *jobs)):
        pass


def generate(
    backend: Backend, prompt: Sequence[int], max_tokens: int, sampling: SamplingSettings | None = None
) -> list[int]:
    """The tokens of one generation."""
    job = generation(backend, prompt, max_tokens, sampling)
    run(backend, job)
    return tokens(job)


def tokens(job: Job) -> list[int]:
    """What a generation has drawn so far."""
    return [drawn.token for drawn in job.out]


def score(
    backend: Backend, context: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[TokenScores]:
    """The scores of one job."""
    job = scoring(backend, context, continuations)
    run(backend, job)
    return job.out
