"""How the worker lets several requests share one model and one KV cache."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.batching.jobs import UNREAD_MAX, Job
from edgewright_agent.engine_worker.batching.model_thread import ModelThread
from edgewright_agent.engine_worker.batching.pool import CacheRow, Pool
from edgewright_agent.engine_worker.batching.scheduler import SLICE_TOKENS_BETWEEN_STEPS
from edgewright_agent.engine_worker.model import onnx
from edgewright_agent.engine_worker.model.backend import Backend, CachePlace, SamplingSettings, layout_of
from edgewright_agent.engine_worker.model.fake import FakeBackend, fake_tokens
from edgewright_agent.engines.worker_launch import SEQUENCES_MAX
from tests.support.engine_releases import CONTEXT_TOKENS, Release
from tests.support.worker_runs import generate, generation, run, scheduler, score, scoring, tokens, turns

UNREAD = [None] * UNREAD_MAX  # as many results as pause a job
SYSTEM = list(range(40, 100))  # a prompt's beginning that requests share


def has_begun(*jobs: Job) -> list[bool]:
    return [job.row is not None for job in jobs]


def fake(folder: Path, concurrency: int = 1, **behaviour: Any) -> FakeBackend:
    (folder / "fake.json").write_text(json.dumps(behaviour), encoding="utf-8")
    return FakeBackend(folder, CONTEXT_TOKENS, concurrency)


@pytest.fixture(params=["fake", "onnxruntime-genai"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Backend]:
    """Makes backends that have read nothing yet."""
    if request.param == "fake":
        return lambda: fake(tmp_path)
    tiny: Release = request.getfixturevalue("tiny_onnx")
    return lambda: onnx.OnnxBackend(tiny.tree / "engine", tiny.tree / "tokenizer", CONTEXT_TOKENS, threads=1)


def test_eight_requests_together_draw_what_each_draws_alone(fresh: Callable[[], Backend]) -> None:
    backend = fresh()
    prompts = [list(range(50 + n, 53 + 2 * n)) for n in range(8)]
    jobs = [
        generation(backend, prompt, 8 + n % 3, SamplingSettings(temperature=n % 2, seed=n))
        for n, prompt in enumerate(prompts)
    ]
    run(backend, *jobs)
    for n, (job, prompt) in enumerate(zip(jobs, prompts, strict=True)):
        assert tokens(job) == generate(
            fresh(), prompt, 8 + n % 3, SamplingSettings(temperature=n % 2, seed=n)
        )


def test_requests_that_end_early_leave_no_gaps_and_change_nothing(fresh: Callable[[], Backend]) -> None:
    backend = fresh()
    prompts = [list(range(50 + n, 53 + 2 * n)) for n in range(8)]
    lengths = [3 if n % 2 else 30 for n in range(8)]  # every other row is soon free
    jobs = [generation(backend, prompt, count) for prompt, count in zip(prompts, lengths, strict=True)]
    run(backend, *jobs)
    for job, prompt, count in zip(jobs, prompts, lengths, strict=True):
        assert tokens(job) == generate(fresh(), prompt, count)


def batch_sizes(backend: FakeBackend, seconds: float = 0.0) -> list[int]:
    """How many sequences each step has, from now on; a step takes `seconds` longer."""
    sizes: list[int] = []
    step = backend.step

    def noted(places: Sequence[CachePlace], *rest: Any) -> Any:
        sizes.append(len(places))
        time.sleep(seconds)
        return step(places, *rest)

    backend.step = noted  # type: ignore[assignment, method-assign]
    return sizes


def test_what_lies_apart_is_brought_together_within_a_few_steps(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    sizes = batch_sizes(backend)
    run(backend, *(generation(backend, [65 + n, 66], 3 if n % 2 else 29) for n in range(8)))
    assert sum(sizes) == 4 * 3 + 4 * 29 - 8  # the first token of each is its prompt's
    assert (
        len(sizes) < 50
    )  # the longest takes 28, and begins after seven prompts; apart it would be twice as many


def test_requests_at_once_are_one_batch_wherever_earlier_prompts_are_kept(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    for n in range(20):  # the pool is full of prompts
        generate(backend, [65 + n, 66, 67], 3)
    for first in range(5):
        sizes = batch_sizes(backend)
        run(backend, *(generation(backend, [70 + first + 3 * n, 66, 67], 25) for n in range(2)))
        assert sizes.count(2) >= 22


@pytest.mark.parametrize("request_tokens", [20, 32, 33, 64, 65, 128, 129, 250])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_as_many_requests_share_a_step_as_the_worker_says(
    tmp_path: Path, concurrency: int, request_tokens: int
) -> None:
    backend = fake(tmp_path, concurrency)
    said = ModelThread(backend, max(SEQUENCES_MAX, concurrency), Turns()).together(request_tokens)
    sizes = batch_sizes(backend)
    run(backend, *(generation(backend, [65 + n, 66], request_tokens - 2) for n in range(10)))
    assert max(sizes) == said


def test_every_request_that_has_begun_gets_a_token_each_turn(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    jobs = [generation(backend, [60 + n], 20) for n in range(8)]
    made = scheduler(backend, *jobs)
    going = turns(made)
    for _ in range(8):  # one prompt is read each turn
        next(going)
    for _ in range(10):
        before = [len(job.out) for job in jobs]
        next(going)
        assert [len(job.out) for job in jobs] == [count + 1 for count in before]


def test_a_long_prompt_holds_nobody_up_for_longer_than_a_slice(tmp_path: Path) -> None:
    backend = fake(tmp_path, concurrency=2)
    short = generation(backend, [65, 66], 30)
    made = scheduler(backend, short)
    going = turns(made)
    next(going)
    long = generation(backend, list(range(60, 90)) * 6, 4)
    made.add(long)
    expected = -(-len(long.prompt) // SLICE_TOKENS_BETWEEN_STEPS)
    for _ in range(expected):
        before = len(short.out)
        assert not long.out
        next(going)
        assert len(short.out) == before + 1
    assert long.out


def test_short_prompts_are_read_soon_beside_a_long_one(tmp_path: Path) -> None:
    backend = fake(tmp_path, concurrency=2)
    long = generation(backend, list(range(60, 90)) * 8, 4)
    short = [generation(backend, [65 + n, 66], 4) for n in range(3)]
    going = turns(scheduler(backend, long, *short))
    for _ in range(7):
        next(going)
    assert all(job.out for job in short)


def test_requests_wait_for_room_in_the_order_they_came(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    first = generation(backend, [65], CONTEXT_TOKENS // 2)
    large = generation(backend, [66], CONTEXT_TOKENS - 1)
    small = generation(backend, [67], 3)
    ended: list[Job] = []
    for _ in turns(scheduler(backend, first, large, small)):
        ended += [job for job in (first, large, small) if job.out and job.row is None and job not in ended]
        rows = [job.row for job in (first, large, small) if job.row is not None]
        assert sum(row.place.width_tokens for row in rows) <= CONTEXT_TOKENS
    assert ended == [first, large, small]


def test_a_cancelled_request_gives_its_room_back_at_once(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    whole, waiting = (
        generation(backend, [65], CONTEXT_TOKENS - 1),
        generation(backend, [66], CONTEXT_TOKENS - 1),
    )
    gone = generation(backend, [67], 5)
    made = scheduler(backend, whole, gone, waiting)
    going = turns(made)
    next(going)
    assert has_begun(whole, gone, waiting) == [True, False, False]
    whole.cancelled = gone.cancelled = True
    next(going)
    assert has_begun(whole, gone, waiting) == [False, False, True]
    assert not gone.out


def test_a_request_whose_reader_is_behind_is_paused_and_then_goes_on_where_it_was(
    fresh: Callable[[], Backend],
) -> None:
    backend = fresh()
    slow, other = generation(backend, [50, 51, 52], 20), generation(backend, [60, 61], 30)
    made = scheduler(backend, slow, other)
    slow.arrivals.put(UNREAD)
    for _ in turns(made):
        pass
    assert (len(slow.out), len(other.out)) == (1, 30)  # its prompt gave it the first token
    for _ in range(3):
        made.compute_for_nobody()
    assert asyncio.run(slow.arrivals.take()) == UNREAD
    made.look_again()
    for _ in turns(made):
        pass
    assert tokens(slow) == generate(fresh(), slow.prompt, 20)
    assert tokens(other) == generate(fresh(), other.prompt, 30)


def test_a_paused_request_that_is_cancelled_gives_its_room_back(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    slow, waiting = (generation(backend, [65 + n], CONTEXT_TOKENS - 1) for n in range(2))
    made = scheduler(backend, slow, waiting)
    slow.arrivals.put(UNREAD)
    for _ in turns(made):
        pass
    assert has_begun(slow, waiting) == [True, False]
    made.compute_for_nobody()  # a heartbeat, and no room in the cache
    slow.cancelled = True
    next(turns(made))
    assert has_begun(slow, waiting) == [False, True]


async def test_a_reader_that_waits_stops_the_model_and_then_gets_every_token(tmp_path: Path) -> None:
    backend = FakeBackend(
        tmp_path, 4 * UNREAD_MAX, 8
    )  # the reader has taken up to UNREAD_MAX when it stops to read
    model = ModelThread(backend, SEQUENCES_MAX, Turns())
    sizes, count = batch_sizes(backend, seconds=0.002), 4 * UNREAD_MAX - 1  # tokens travel together for 0.1 s
    job = generation(backend, [65], count)
    async with contextlib.aclosing(model.results(job)) as results:
        read = list(await anext(results))
        while not job.arrivals.are_full:
            await asyncio.sleep(0.005)
        await model.heartbeat()  # it is paused, not stuck
        steps = len(sizes)
        await model.heartbeat()
        assert len(sizes) == steps < count - 1
        read += [token for together in [together async for together in results] for token in together]
    assert [drawn.token for drawn in read] == _greedy([65], count)


def test_an_error_of_the_model_ends_its_batch_and_the_next_request_is_served(tmp_path: Path) -> None:
    backend = fake(tmp_path, fail_after_tokens=3)
    jobs = [generation(backend, [65 + n], 20) for n in range(3)]
    made = scheduler(backend, *jobs)
    errors = []
    while made.busy:
        errors += [(job, error) for job, error in made.turn() if error is not None]
        backend.behaviour = backend.behaviour if not errors else fake(tmp_path / ".").behaviour
    assert [str(error) for _, error in errors] == ["the fake engine was told to fail"] * len(errors)
    assert errors
    assert generate(backend, [65], 5) == _greedy([65], 5)


def test_a_shared_beginning_is_read_once_and_changes_nothing(fresh: Callable[[], Backend]) -> None:
    backend = fresh()
    first = generation(backend, [*SYSTEM, 110, 111], 6)
    run(backend, first)
    second = generation(backend, [*SYSTEM, 120, 121, 122], 6)
    same = generation(backend, [*SYSTEM, 110, 111], 6)
    run(backend, second, same)
    assert (first.cached_tokens, second.cached_tokens, same.cached_tokens) == (0, 60, 60)
    assert tokens(second) == generate(fresh(), second.prompt, 6)
    assert tokens(same) == tokens(first)


def test_a_prompt_being_served_lends_its_beginning_to_another(fresh: Callable[[], Backend]) -> None:
    backend = fresh()
    first, second = (generation(backend, [*SYSTEM, 110 + n, 111], 40) for n in range(2))
    made = scheduler(backend, first)
    going = turns(made)
    next(going)
    made.add(second)
    for _ in going:
        pass
    assert second.cached_tokens == 60
    for job in (first, second):
        assert tokens(job) == generate(fresh(), job.prompt, 40)


def test_scores_after_a_known_context_are_the_same_to_the_last_bit(fresh: Callable[[], Backend]) -> None:
    backend, context, continuations = fresh(), [*SYSTEM, 101], [[110, 111, 112], [113], [114, 115]]
    first = score(backend, context, continuations)
    again = scoring(backend, context, continuations)
    run(backend, again)
    assert again.cached_tokens == len(context) - 2
    assert again.out == first == score(fresh(), context, continuations)


def test_generated_tokens_are_not_taken_for_a_prompt(fresh: Callable[[], Backend]) -> None:
    """Read one by one they differ in the last bit from a prompt's."""
    backend = fresh()
    first = generation(backend, SYSTEM, 20)
    run(backend, first)
    second = generation(backend, [*SYSTEM, *tokens(first), 110], 6)
    run(backend, second)
    assert second.cached_tokens == len(SYSTEM)
    assert tokens(second) == generate(fresh(), second.prompt, 6)


def test_prompts_that_nobody_needs_give_way(tmp_path: Path) -> None:
    backend = fake(tmp_path)
    for n in range(20):
        prompt = [65 + n] * 20
        assert generate(backend, prompt, 4) == _greedy(prompt, 4)
    newest, oldest = generation(backend, [84] * 20, 4), generation(backend, [65] * 20, 4)
    run(backend, newest, oldest)
    assert newest.cached_tokens == 18
    assert oldest.cached_tokens == 0


@given(
    requests=st.lists(
        st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=24), st.integers(1, 40), st.booleans()),
        max_size=30,
    ),
    lanes=st.integers(1, 3),
    window=st.sampled_from([0, 5, 20, 60, 100]),
)
@settings(max_examples=100, deadline=None)
def test_no_place_is_used_twice_and_what_is_reused_is_there(
    requests: list[tuple[list[int], int, bool]], lanes: int, window: int
) -> None:
    context = 67  # does not divide by eight
    layout = layout_of(context, window)
    memory: list[Any] = [None] * layout.pool_tokens(lanes)

    def copy(source: CachePlace, target: CachePlace, count: int) -> None:
        memory[target.start_tokens : target.start_tokens + count] = memory[
            source.start_tokens : source.start_tokens + count
        ]

    pool, active = Pool(layout, len(memory), context, copy), list[CacheRow]()
    for prompt, more, stays in requests:
        row = pool.take(len(prompt) + more, prompt, None)
        if row is None:
            assert active
            for other in active:
                pool.release(other)
            active.clear()
            continue
        assert max(len(prompt) + more, window) <= row.place.width_tokens
        assert row.place.end_tokens <= len(memory)
        assert not any(_shares_a_token(row.place, other.place) for other in active)
        start, shared = row.place.start_tokens, len(row.tokens)
        assert memory[start : start + shared] == prompt[:shared]
        memory[start + shared : row.place.end_tokens] = [None] * (row.place.width_tokens - shared)
        memory[start : start + len(prompt)] = prompt
        row.note_read(shared, prompt[shared:])
        active.append(row)
        if not stays:
            pool.release(active.pop())


def _shares_a_token(one: CachePlace, other: CachePlace) -> bool:
    return bool(
        set(range(one.start_tokens, one.end_tokens)) & set(range(other.start_tokens, other.end_tokens))
    )


def _greedy(prompt: Sequence[int], count: int) -> list[int]:
    return [token for token, _ in zip(fake_tokens(prompt), range(count), strict=False)]


@pytest.mark.parametrize(
    ("context", "window", "share", "shares"),
    [
        (256, 0, 32, 8), (256, 32, 32, 8), (256, 33, 64, 4), (256, 64, 64, 4), (256, 200, 256, 1), (256, 256, 256, 1),
        (256, 4096, 4096, 1), (100, 0, 13, 8), (100, 14, 25, 4), (1000, 128, 250, 4),
    ],
)  # fmt: skip
def test_a_row_of_the_cache_is_never_narrower_than_the_attention_s_window(
    context: int, window: int, share: int, shares: int
) -> None:
    layout = layout_of(context, window)
    assert (layout.share_tokens, layout.shares) == (share, shares)
    assert layout.share_tokens * layout.shares >= context
