"""The on-device benchmark: random prompts of one length through the active release.

Prompts are shuffles of one fixed multiset of words, so that all have (nearly) the same number of tokens
and none shares a prefix that an engine could reuse. The engine's own count says how many words make the
length that was asked for; the result reports the count that was served.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.protocol import Finish, GenerationRequest, Token
from edgewright_agent.errors import EdgewrightError, InputError, OutsideError
from edgewright_agent.telemetry.monitor import Telemetry
from edgewright_agent.telemetry.serving import RequestWindow, ServingStats
from edgewright_agent.telemetry.types import Distribution, EnergyMark

PROMPTS_MAX = 10_000
CONCURRENCY_MAX = 64
VALUES_MAX = 100_000  # of the run's distributions
IDLE_SECONDS = 30.0  # MLPerf Power and TokenPowerBench measure the idle baseline for as long
CALIBRATION_ROUNDS = 8

Generate = Callable[[GenerationRequest], "AsyncGenerator[Token | Finish, None]"]

# One token each in the usual byte-level vocabularies, with the blank before it.
WORDS = (  # noqa: SIM905 - a list of a hundred quoted words says the same in a hundred lines
    "the of and to in is that for it was on with as be at by this had not are but from or have an they "
    "which one you were all her she there would their we him been has when who will no more if out so said "
    "what up its about into than them can only other time new some could these two may first then do any"
).split()


@dataclass(frozen=True)
class BenchmarkPlan:
    """What to run."""

    prompts: int
    input_tokens: int
    output_tokens: int
    concurrency: int = 1
    warmup_prompts: int = 0

    def check(self, context_tokens: int) -> None:
        """Raises InputError for a value out of bounds or more tokens than the context holds."""
        bounds = {
            "prompts": (self.prompts, 1, PROMPTS_MAX),
            "input_tokens": (self.input_tokens, 1, 2**31),
            "output_tokens": (self.output_tokens, 1, 2**31),
            "concurrency": (self.concurrency, 1, CONCURRENCY_MAX),
            "warmup_prompts": (self.warmup_prompts, 0, PROMPTS_MAX),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; it must be from {low} to {high}.")
        if self.input_tokens + self.output_tokens > context_tokens:
            raise InputError(
                f"{self.input_tokens} input and {self.output_tokens} output tokens exceed the release's "
                f"context of {context_tokens} tokens.",
                Reason.REASON_CONTEXT_EXCEEDED,
            )


@dataclass(frozen=True)
class BenchmarkProgress:
    """How far it is."""

    prompts_done: int
    prompts_total: int
    generated_tokens_per_second: float


@dataclass(frozen=True)
class BenchmarkEnergy:
    """Energy of the run. Net is gross less what the board draws with the engine loaded and idle."""

    rail: str
    whole_module: bool
    gross_joules_per_output_token: float
    net_joules_per_output_token: float | None
    mean_watts: float
    baseline_watts: float | None
    samples: int
    gaps: int


@dataclass(frozen=True)
class BenchmarkResult:
    """What it measured. `input_tokens` and `output_tokens` are means over the prompts, as served."""

    prompts: int
    prompts_failed: int
    input_tokens: int
    output_tokens: int
    concurrency: int
    duration_seconds: float
    generated_tokens_per_second: float
    total_tokens_per_second: float
    time_to_first_token_seconds: Distribution
    time_per_output_token_seconds: Distribution
    inter_token_latency_seconds: Distribution
    engine_peak_bytes: int | None
    energy: BenchmarkEnergy | None
    weights_bytes: int


@dataclass
class _Run:
    """The run's tallies."""

    stats: ServingStats = field(default_factory=lambda: ServingStats(VALUES_MAX))
    failed: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    last_error: EdgewrightError | None = None


async def run_benchmark(
    plan: BenchmarkPlan,
    generate: Generate,
    telemetry: Telemetry,
    *,
    context_tokens: int,
    weights_bytes: int,
    idle_seconds: float = IDLE_SECONDS,
    seed: int = 0,
) -> AsyncGenerator[BenchmarkProgress | BenchmarkResult, None]:
    """Progress after each prompt, then the result. Closing the generator cancels what is running.

    Raises InputError for a plan the release can't serve, and the engine's error if every prompt failed.
    """
    plan.check(context_tokens)
    yield BenchmarkProgress(0, plan.prompts, 0.0)
    words = await _words_for(plan.input_tokens, generate, seed)
    prompts = _shuffles(words, seed)
    await _serve(plan.warmup_prompts, plan, prompts, generate, _Run(), asyncio.Queue(), telemetry)
    baseline_watts = await _idle_watts(telemetry, idle_seconds)

    run, done = _Run(), asyncio.Queue[None]()
    before, start = await asyncio.to_thread(telemetry.sample_energy), telemetry.now()
    serving = asyncio.create_task(_serve(plan.prompts, plan, prompts, generate, run, done, telemetry))
    try:
        for count in range(1, plan.prompts + 1):
            await _next_done(done, serving)
            elapsed = telemetry.now() - start
            yield BenchmarkProgress(count, plan.prompts, run.generated_tokens / elapsed)
        await serving
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    seconds = telemetry.now() - start
    after = await asyncio.to_thread(telemetry.sample_energy)
    energy = _energy(before, after, run.generated_tokens, baseline_watts)
    yield _result(plan, run, telemetry, weights_bytes, seconds, energy)


async def _serve(
    count: int,
    plan: BenchmarkPlan,
    prompts: Callable[[int], str],
    generate: Generate,
    run: _Run,
    done: asyncio.Queue[None],
    telemetry: Telemetry,
) -> None:
    """`count` prompts, `plan.concurrency` at a time, each worker taking the next."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await _one(prompts(number), plan.output_tokens, generate, run, telemetry)
            done.put_nowait(None)

    workers = [asyncio.create_task(worker()) for _ in range(min(plan.concurrency, count))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _one(prompt: str, max_tokens: int, generate: Generate, run: _Run, telemetry: Telemetry) -> None:
    window = RequestWindow(run.stats, lambda *_: None, telemetry.now)
    try:
        finish = await _finish_of(prompt, max_tokens, generate, window)
    except InputError:
        raise  # the next prompt would be refused as well
    except EdgewrightError as error:
        window.fail()
        run.failed += 1
        run.last_error = error
        return
    window.end(finish.prompt_tokens, finish.generated_tokens)
    run.prompt_tokens += finish.prompt_tokens
    run.generated_tokens += finish.generated_tokens


async def _finish_of(
    prompt: str, max_tokens: int, generate: Generate, window: RequestWindow | None
) -> Finish:
    request = GenerationRequest(prompt=prompt, max_tokens=max_tokens, ignore_eos=True)
    async with aclosing(generate(request)) as items:
        async for item in items:
            if isinstance(item, Finish):
                return item
            if window is not None:
                window.token()
    raise OutsideError("The engine ended a generation without a finish.", Reason.REASON_ENGINE_FAILED)


async def _words_for(input_tokens: int, generate: Generate, seed: int) -> list[str]:
    """A multiset of words whose shuffles the engine counts as at most, and nearly, `input_tokens`."""
    choose = random.Random(seed).choices  # noqa: S311 - not a secret
    words = choose(WORDS, k=input_tokens)
    for _ in range(CALIBRATION_ROUNDS):
        counted = (await _finish_of(" ".join(words), 1, generate, None)).prompt_tokens
        missing = (input_tokens - counted) * len(words) // counted
        if missing == 0:
            break
        words = words + choose(WORDS, k=missing) if missing > 0 else words[: max(1, len(words) + missing)]
    return words


def _shuffles(words: list[str], seed: int) -> Callable[[int], str]:
    """Prompt number n: the words in an order of its own."""

    def prompt(number: int) -> str:
        order = words.copy()
        random.Random(f"{seed}/{number}").shuffle(order)  # noqa: S311 - not a secret
        return " ".join(order)

    return prompt


async def _idle_watts(telemetry: Telemetry, seconds: float) -> float | None:
    """Mean power while the engine is loaded and nobody asks; None without a sensor or across a gap."""
    if telemetry.energy() is None or seconds <= 0:
        return None
    before = await asyncio.to_thread(telemetry.sample_energy)
    await asyncio.sleep(seconds)
    after = await asyncio.to_thread(telemetry.sample_energy)
    if before is None or after is None or after.rail.gaps != before.rail.gaps:
        return None
    return (after.rail.joules - before.rail.joules) / (after.seconds - before.seconds)


async def _next_done(done: asyncio.Queue[None], serving: asyncio.Task[None]) -> None:
    """Waits for one more prompt, or for the error that ends them all."""
    getting = asyncio.create_task(done.get())
    await asyncio.wait({getting, serving}, return_when=asyncio.FIRST_COMPLETED)
    if not getting.done() and done.empty():
        getting.cancel()
        await serving  # raises
    else:
        await getting


def _result(
    plan: BenchmarkPlan,
    run: _Run,
    telemetry: Telemetry,
    weights_bytes: int,
    seconds: float,
    energy: BenchmarkEnergy | None,
) -> BenchmarkResult:
    served = plan.prompts - run.failed
    if not served:
        raise run.last_error or OutsideError("No prompt was served.", Reason.REASON_ENGINE_FAILED)
    serving = run.stats.serving()
    memory = telemetry.engine_memory()
    return BenchmarkResult(
        prompts=plan.prompts,
        prompts_failed=run.failed,
        input_tokens=round(run.prompt_tokens / served),
        output_tokens=round(run.generated_tokens / served),
        concurrency=plan.concurrency,
        duration_seconds=seconds,
        generated_tokens_per_second=run.generated_tokens / seconds,
        total_tokens_per_second=(run.prompt_tokens + run.generated_tokens) / seconds,
        time_to_first_token_seconds=serving.time_to_first_token_seconds,
        time_per_output_token_seconds=serving.time_per_output_token_seconds,
        inter_token_latency_seconds=serving.inter_token_latency_seconds,
        engine_peak_bytes=memory.peak_bytes if memory else None,
        energy=energy,
        weights_bytes=weights_bytes,
    )


def _energy(
    before: EnergyMark | None,
    after: EnergyMark | None,
    output_tokens: int,
    baseline_watts: float | None,
) -> BenchmarkEnergy | None:
    """Gross = joules / output tokens; net = (joules - baseline W · seconds) / output tokens."""
    if before is None or after is None or after.seconds == before.seconds or not output_tokens:
        return None
    joules = after.rail.joules - before.rail.joules
    seconds = after.seconds - before.seconds
    net = None if baseline_watts is None else (joules - baseline_watts * seconds) / output_tokens
    return BenchmarkEnergy(
        rail=after.rail.name,
        whole_module=after.rail.whole_module,
        gross_joules_per_output_token=joules / output_tokens,
        net_joules_per_output_token=net,
        mean_watts=joules / seconds,
        baseline_watts=baseline_watts,
        samples=after.rail.samples - before.rail.samples,
        gaps=after.rail.gaps - before.rail.gaps,
    )
