"""A closed loop of callers: each sends its next prompt as soon as its last is answered.

The same loop measures on the board, in the agent, and on the host, over the network: only the clock's place differs.
Definitions: TTFT = sent to first token; ITL = a token to the next; TPOT = (last - first token) / (tokens - 1);
end to end = sent to last token; throughput = tokens / time from the first prompt sent to the last one answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from edgewright.errors import EdgewrightError, InputError, OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.benchmark.prompts import shuffles, words_for
from edgewright_agent.engines import Finish, GenerationRequest, Token
from edgewright_agent.telemetry.serving import EnergyBetween, RequestWindow, ServingStats, distribution
from edgewright_agent.telemetry.types import Distribution, RequestSummary

PROMPTS_MAX = 10_000
CONCURRENCY_MAX = 64
VALUES_MAX = 100_000  # of the run's distributions

Generate = Callable[[GenerationRequest], "AsyncGenerator[Token | Finish, None]"]


@dataclass(frozen=True)
class BenchmarkPlan:
    """The load that a benchmark is to run."""

    prompts: int
    input_tokens: int
    output_tokens: int
    concurrency: int = 1
    warmup_prompts: int = 0
    seed: int = 0  # of the prompts

    @property
    def callers(self) -> int:
        """How many ask at once: never more than there are prompts."""
        return min(self.concurrency, self.prompts)

    @property
    def request_tokens(self) -> int:
        """Tokens of one prompt and its answer."""
        return self.input_tokens + self.output_tokens

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
        if self.request_tokens > context_tokens:
            raise InputError(
                f"{self.input_tokens} input and {self.output_tokens} output tokens exceed the release's "
                f"context of {context_tokens} tokens.",
                Reason.REASON_CONTEXT_EXCEEDED,
            )


@dataclass(frozen=True)
class BenchmarkProgress:
    """How far a load has come."""

    prompts_done: int
    prompts_total: int
    generated_tokens_per_second: float


@dataclass(frozen=True)
class LoadMeasurement:
    """What a load gave. `input_tokens` and `output_tokens` are means over the prompts, as served."""

    prompts_failed: int
    input_tokens: int
    output_tokens: int
    duration_seconds: float
    generated_tokens: int
    generated_tokens_per_second: float
    total_tokens_per_second: float
    time_to_first_token_seconds: Distribution
    time_per_output_token_seconds: Distribution
    inter_token_latency_seconds: Distribution
    end_to_end_seconds: Distribution


@dataclass
class LoadTally:
    """What the prompts of one load have given so far."""

    stats: ServingStats = field(default_factory=lambda: ServingStats(VALUES_MAX))
    end_to_end: list[float] = field(default_factory=list)
    served: list[tuple[Finish, RequestSummary]] = field(default_factory=list)
    failed: int = 0
    last_error: EdgewrightError | None = None

    @property
    def generated_tokens(self) -> int:
        """Tokens generated over all prompts served."""
        return sum(finish.generated_tokens for finish, _ in self.served)


class Load:
    """The prompts of a plan, ready to be served. `energy` is asked for each request's window."""

    def __init__(
        self,
        plan: BenchmarkPlan,
        generate: Generate,
        clock: Callable[[], float],
        energy: EnergyBetween = lambda *_: None,
    ) -> None:
        self._plan, self._generate, self._clock, self._energy = plan, generate, clock, energy
        self._prompt: Callable[[int], str] | None = None
        self._used = 0
        self._seconds = 0.0
        self.tally = LoadTally()

    @property
    def prompts_sent(self) -> int:
        """The prompts sent once the words are found: warming up, in the run, and alone."""
        return self._used

    async def prepare(self) -> None:
        """Finds the prompts' length, then warms up. Raises as the engine does."""

        async def count(text: str) -> int:
            return (await self._finish_of(text, 1, None)).prompt_tokens

        words = await words_for(self._plan.input_tokens, count, self._plan.seed)
        self._prompt = shuffles(words, self._plan.seed)
        await self.serve(self._plan.warmup_prompts, self._plan.callers, LoadTally())

    async def run(self) -> AsyncGenerator[BenchmarkProgress, None]:
        """Serves the plan's prompts, with progress after each. Closing it cancels those under way."""
        done, total, start = asyncio.Queue[None](), self._plan.prompts, self._clock()
        serving = asyncio.create_task(
            self.serve(total, self._plan.callers, self.tally, lambda: done.put_nowait(None))
        )
        try:
            for count in range(1, total + 1):
                await _next_done(done, serving)
                rate = self.tally.generated_tokens / (self._clock() - start)
                yield BenchmarkProgress(count, total, rate)
            await serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        self._seconds = self._clock() - start

    async def serve(
        self, count: int, callers: int, tally: LoadTally, on_done: Callable[[], None] = lambda: None
    ) -> None:
        """Sends `count` prompts that were not used before, `callers` at a time; each caller takes the next."""
        numbers = iter(range(self._used, self._used + count))
        self._used += count

        async def caller() -> None:
            for number in numbers:
                await self._one(number, tally)
                on_done()

        tasks = [asyncio.create_task(caller()) for _ in range(min(callers, count))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def measured(self) -> LoadMeasurement:
        """Returns what `run` gave. Raises the engine's error if no prompt was served."""
        tally, served = self.tally, len(self.tally.served)
        if not served:
            raise tally.last_error or OutsideError(
                "No prompt was served. Look at the agent's log, and run it again.",
                Reason.REASON_ENGINE_FAILED,
            )
        serving = tally.stats.serving()
        read = sum(finish.prompt_tokens for finish, _ in tally.served)
        generated = tally.generated_tokens
        return LoadMeasurement(
            prompts_failed=tally.failed,
            input_tokens=round(read / served),
            output_tokens=round(generated / served),
            duration_seconds=self._seconds,
            generated_tokens=generated,
            generated_tokens_per_second=generated / self._seconds,
            total_tokens_per_second=(read + generated) / self._seconds,
            time_to_first_token_seconds=serving.time_to_first_token_seconds,
            time_per_output_token_seconds=serving.time_per_output_token_seconds,
            inter_token_latency_seconds=serving.inter_token_latency_seconds,
            end_to_end_seconds=distribution(tally.end_to_end),
        )

    async def _one(self, number: int, tally: LoadTally) -> None:
        assert self._prompt is not None, "prepare comes first"
        prompt, start = self._prompt(number), self._clock()
        window = RequestWindow(tally.stats, self._energy, self._clock)
        try:
            finish = await self._finish_of(prompt, self._plan.output_tokens, window)
        except InputError:
            raise  # the next prompt would be refused as well
        except EdgewrightError as error:
            window.fail()
            tally.failed += 1
            tally.last_error = error
            return
        tally.end_to_end.append(self._clock() - start)
        tally.served.append((finish, window.end(finish.prompt_tokens, finish.generated_tokens)))

    async def _finish_of(self, prompt: str, max_tokens: int, window: RequestWindow | None) -> Finish:
        request = GenerationRequest(prompt=prompt, max_tokens=max_tokens, ignore_eos=True)
        async with aclosing(self._generate(request)) as items:
            async for item in items:
                if isinstance(item, Finish):
                    return item
                if window is not None:
                    window.token(item.at_seconds)
        raise OutsideError(
            "The engine ended an answer without saying why. Run it again; if it stays so, look at the agent's log.",
            Reason.REASON_ENGINE_FAILED,
        )


async def _next_done(done: asyncio.Queue[None], serving: asyncio.Task[None]) -> None:
    """Waits for one more prompt, or for the error that ends them all."""
    getting = asyncio.create_task(done.get())
    try:
        await asyncio.wait({getting, serving}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done() or not done.empty():
            await getting
        else:
            await serving  # raises
    finally:
        getting.cancel()
