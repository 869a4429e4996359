from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from edgewright.errors import InputError, OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.benchmark.benchmark import BenchmarkResult, phase_energy, run_benchmark
from edgewright_agent.benchmark.load import BenchmarkPlan, BenchmarkProgress
from edgewright_agent.benchmark.proto import benchmark_to_proto
from edgewright_agent.engines import EngineMemory, Finish, GenerationRequest, Token
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry.types import EnergyWindow, RequestSummary
from edgewright_profiles import load_profile
from tests.fixtures.boards import write_board

CONTEXT_TOKENS = 4096


class SlowTokens:
    """An engine of 1 ms per token that counts a token per word, and some more per prompt."""

    def __init__(self, tokens_per_word: float = 1.0, extra_tokens: int = 0, fail_from: int = 2**31) -> None:
        self.requests: list[GenerationRequest] = []
        self.running = self.running_peak = self.cancelled = 0
        self._tokens_per_word, self._extra, self._fail_from = tokens_per_word, extra_tokens, fail_from

    async def generate(
        self, request: GenerationRequest, client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        self.requests.append(request)
        if len(self.requests) > self._fail_from:
            raise OutsideError("The engine died.", Reason.REASON_ENGINE_FAILED)
        self.running += 1
        self.running_peak = max(self.running_peak, self.running)
        try:
            for number in range(request.max_tokens):
                await asyncio.sleep(0.001)
                yield Token("x", number)
            words = len((request.prompt or "").split())
            prompt_tokens = round(words * self._tokens_per_word) + self._extra
            yield Finish("length", prompt_tokens, request.max_tokens)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@pytest.fixture
def telemetry(tmp_path: Path) -> Telemetry:
    return Telemetry(load_profile("jetson-orin-nano-8gb"), write_board("orin-nano", tmp_path))


async def benchmark(
    plan: BenchmarkPlan, engine: SlowTokens, telemetry: Telemetry, idle_seconds: float = 0.0
) -> tuple[list[BenchmarkProgress], BenchmarkResult]:
    events = [
        event
        async for event in run_benchmark(
            plan,
            engine.generate,
            telemetry,
            context_tokens=CONTEXT_TOKENS,
            weights_bytes=7,
            idle_seconds=idle_seconds,
        )
    ]
    *progress, result = events
    assert isinstance(result, BenchmarkResult)
    return [event for event in progress if isinstance(event, BenchmarkProgress)], result


async def test_the_result_counts_what_the_engine_served(telemetry: Telemetry) -> None:
    engine = SlowTokens()
    telemetry.set_engine_memory_source(lambda: EngineMemory(5, 9, "pss"))
    progress, result = await benchmark(BenchmarkPlan(6, 32, 10, concurrency=3), engine, telemetry)
    load = result.load
    assert (result.plan.prompts, load.prompts_failed) == (6, 0)
    assert (load.input_tokens, load.output_tokens) == (32, 10)
    assert load.generated_tokens_per_second == pytest.approx(60 / load.duration_seconds)
    assert load.total_tokens_per_second == pytest.approx((60 + 6 * 32) / load.duration_seconds)
    assert load.time_to_first_token_seconds.count == 6
    assert load.time_per_output_token_seconds.p50 >= 0.001
    assert load.inter_token_latency_seconds.count == 6 * 9
    # Every request ends after its first token and the steps that follow it.
    assert load.end_to_end_seconds.count == 6
    steps_seconds = 9 * load.time_per_output_token_seconds.mean
    first_seconds = load.time_to_first_token_seconds.mean
    assert load.end_to_end_seconds.mean >= first_seconds + steps_seconds - 1e-9
    assert (result.engine_peak_bytes, result.weights_bytes) == (9, 7)
    assert [event.prompts_done for event in progress] == [0, 1, 2, 3, 4, 5, 6]
    assert progress[-1].generated_tokens_per_second > 0


async def test_concurrency_is_kept_and_not_exceeded(telemetry: Telemetry) -> None:
    engine = SlowTokens()
    await benchmark(BenchmarkPlan(9, 8, 5, concurrency=3), engine, telemetry)
    assert engine.running_peak == 3


@pytest.mark.parametrize(("per_word", "extra"), [(1.0, 0), (1.0, 5), (1.7, 3), (0.8, 0), (3.0, 1)])
async def test_prompts_have_the_length_that_was_asked_for(
    telemetry: Telemetry, per_word: float, extra: int
) -> None:
    engine = SlowTokens(per_word, extra)
    _, result = await benchmark(BenchmarkPlan(2, 200, 2), engine, telemetry)
    assert 190 <= result.load.input_tokens <= 200


async def test_no_two_prompts_share_more_than_chance(telemetry: Telemetry) -> None:
    engine = SlowTokens()
    await benchmark(BenchmarkPlan(8, 64, 2, warmup_prompts=2), engine, telemetry)
    prompts = {request.prompt for request in engine.requests if request.max_tokens == 2}
    assert len(prompts) == 10  # also those of the warm-up: an engine may keep what it has read
    assert len({" ".join((prompt or "").split()[:4]) for prompt in prompts}) == 10


async def test_another_seed_shares_no_prompt_and_the_same_seed_all(telemetry: Telemetry) -> None:
    sent = []
    for seed in (1, 1, 2):
        engine = SlowTokens()
        await benchmark(BenchmarkPlan(4, 64, 2, seed=seed), engine, telemetry)
        sent.append([request.prompt for request in engine.requests if request.max_tokens == 2])
    assert sent[0] == sent[1]
    assert not set(sent[0]) & set(sent[2])


async def test_there_are_never_more_callers_than_prompts(telemetry: Telemetry) -> None:
    engine = SlowTokens()
    _, result = await benchmark(BenchmarkPlan(2, 8, 5, concurrency=8), engine, telemetry)
    assert engine.running_peak == 2
    assert benchmark_to_proto(result).result.concurrency == 2


async def test_every_prompt_runs_to_its_full_length(telemetry: Telemetry) -> None:
    engine = SlowTokens()
    await benchmark(BenchmarkPlan(2, 8, 4, warmup_prompts=3), engine, telemetry)
    served = [request for request in engine.requests if request.max_tokens == 4]
    assert len(served) == 5
    assert all(request.ignore_eos and request.temperature == 0 for request in served)


async def test_energy_per_token_is_gross_and_net_of_the_idle_board(telemetry: Telemetry) -> None:
    telemetry.start()
    _, result = await benchmark(BenchmarkPlan(4, 8, 100), SlowTokens(), telemetry, idle_seconds=0.3)
    telemetry.stop()
    energy = result.energy
    assert energy is not None
    assert (energy.rail, energy.whole_module, energy.gaps) == ("VDD_IN", True, 0)
    # The tree's sensor shows the same power always, so the net is nothing.
    assert energy.mean_watts == pytest.approx(5.056, rel=0.02)
    assert energy.baseline_watts == pytest.approx(5.056, rel=0.02)
    assert energy.gross_joules_per_output_token == pytest.approx(
        5.056 * result.load.duration_seconds / 400, rel=0.02
    )
    assert energy.net_joules_per_output_token == pytest.approx(0.0, abs=0.001)


async def test_prefill_and_decode_add_up_to_the_energy_of_requests_served_alone(telemetry: Telemetry) -> None:
    telemetry.start()
    _, result = await benchmark(BenchmarkPlan(4, 8, 200), SlowTokens(), telemetry, idle_seconds=0.3)
    telemetry.stop()
    assert result.energy is not None
    phases = result.energy.phases
    assert phases is not None
    assert phases.prompts == 4
    whole = phases.prefill_joules_per_input_token * 4 * 8 + phases.decode_joules_per_output_token * 4 * 199
    assert result.energy.gross_joules_per_output_token == pytest.approx(whole / (4 * 200), rel=0.05)
    assert phases.net_decode_joules_per_output_token == pytest.approx(0.0, abs=0.001)


async def test_of_requests_that_overlap_a_few_are_repeated_alone_for_the_phases(telemetry: Telemetry) -> None:
    telemetry.start()
    engine = SlowTokens()
    _, result = await benchmark(BenchmarkPlan(6, 8, 150, concurrency=3), engine, telemetry, idle_seconds=0.2)
    telemetry.stop()
    assert result.energy is not None
    assert result.energy.phases is not None
    assert result.energy.phases.prompts == 4
    assert result.load.end_to_end_seconds.count == 6  # those served alone are not in the figures
    assert len({request.prompt for request in engine.requests if request.max_tokens == 150}) == 10


def test_phases_without_a_baseline_are_gross_only_and_without_energy_absent() -> None:
    energy = EnergyWindow("VDD_IN", prefill_joules=6.0, decode_joules=18.0)
    served = [(Finish("length", 12, 10), RequestSummary(2.0, 0.5, energy))]
    alone = phase_energy(served, baseline_watts=None)
    assert alone is not None
    assert (alone.prefill_joules_per_input_token, alone.decode_joules_per_output_token) == (0.5, 2.0)
    assert (alone.net_prefill_joules_per_input_token, alone.net_decode_joules_per_output_token) == (
        None,
        None,
    )
    net = phase_energy(served, baseline_watts=2.0)
    assert net is not None
    assert net.net_prefill_joules_per_input_token == pytest.approx((6 - 2 * 2.0) / 12)
    assert net.net_decode_joules_per_output_token == pytest.approx((18 - 2 * 4.5) / 9)
    assert phase_energy([(Finish("length", 12, 1), RequestSummary(2.0, None, energy))], None) is None
    assert phase_energy([(Finish("length", 12, 9), RequestSummary(2.0, 0.5, None))], None) is None


async def test_without_a_sensor_there_is_no_energy_and_no_wait_for_a_baseline(tmp_path: Path) -> None:
    telemetry = Telemetry(load_profile("raspberry-pi-5-8gb"), write_board("raspberry-pi-5", tmp_path))
    _, result = await asyncio.wait_for(
        benchmark(BenchmarkPlan(1, 4, 2), SlowTokens(), telemetry, idle_seconds=60.0), timeout=5
    )
    assert result.energy is None
    message = benchmark_to_proto(result).result
    assert not message.HasField("energy")
    assert not message.HasField("engine_peak_bytes")


async def test_result_and_progress_become_their_messages(telemetry: Telemetry) -> None:
    progress, result = await benchmark(BenchmarkPlan(2, 8, 4), SlowTokens(), telemetry, idle_seconds=0.1)
    assert benchmark_to_proto(progress[1]).progress.prompts_total == 2
    message = benchmark_to_proto(result).result
    assert message.inter_token_latency_seconds.count == 6
    assert message.energy.rail == "VDD_IN"
    assert not message.HasField("requests_together")


async def test_failed_prompts_are_counted_and_the_rest_is_measured(telemetry: Telemetry) -> None:
    # One request finds the prompt's length, three are served, then the engine is gone.
    _, result = await benchmark(BenchmarkPlan(5, 8, 4), SlowTokens(fail_from=4), telemetry)
    assert (result.load.prompts_failed, result.load.time_to_first_token_seconds.count) == (2, 3)


async def test_the_engines_error_comes_out_if_no_prompt_was_served(telemetry: Telemetry) -> None:
    with pytest.raises(OutsideError, match="The engine died"):
        await benchmark(BenchmarkPlan(5, 8, 4), SlowTokens(fail_from=1), telemetry)


async def test_closing_the_benchmark_cancels_its_requests(telemetry: Telemetry) -> None:
    engine = SlowTokens()
    events = run_benchmark(
        BenchmarkPlan(50, 8, 500, concurrency=4),
        engine.generate,
        telemetry,
        context_tokens=CONTEXT_TOKENS,
        weights_bytes=0,
        idle_seconds=0,
    )
    async for event in events:
        if isinstance(event, BenchmarkProgress) and event.prompts_done:
            break
    await events.aclose()
    assert engine.running == 0
    assert engine.cancelled > 0


@pytest.mark.parametrize(
    "plan",
    [
        BenchmarkPlan(0, 8, 8),
        BenchmarkPlan(10_001, 8, 8),
        BenchmarkPlan(1, 0, 8),
        BenchmarkPlan(1, 8, 0),
        BenchmarkPlan(1, 8, 8, concurrency=65),
    ],
)
async def test_a_plan_out_of_bounds_is_refused(telemetry: Telemetry, plan: BenchmarkPlan) -> None:
    with pytest.raises(InputError, match="must be from"):
        await benchmark(plan, SlowTokens(), telemetry)


async def test_a_plan_beyond_the_context_is_refused_with_both_numbers(telemetry: Telemetry) -> None:
    with pytest.raises(InputError, match=r"4000 input and 97 output tokens exceed .* 4096") as refused:
        await benchmark(BenchmarkPlan(1, 4000, 97), SlowTokens(), telemetry)
    assert refused.value.reason == Reason.REASON_CONTEXT_EXCEEDED


@pytest.mark.parametrize("others", [0, 3])
async def test_where_others_were_served_there_is_no_net_energy_and_nothing_was_served_alone(
    telemetry: Telemetry, others: int
) -> None:
    """Ours are counted by the board as everyone's are."""
    engine, windows = SlowTokens(), [telemetry.request() for _ in range(others)]

    async def served(request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        window = telemetry.request()
        try:
            async for item in engine.generate(request):
                yield item
        finally:
            window.end(1, 1)

    telemetry.start()
    plan = BenchmarkPlan(4, 8, 60)
    events = run_benchmark(
        plan, served, telemetry, context_tokens=CONTEXT_TOKENS, weights_bytes=7, idle_seconds=0.3
    )
    *_, result = [event async for event in events]
    telemetry.stop()
    assert isinstance(result, BenchmarkResult)
    assert len(windows) == result.other_requests == benchmark_to_proto(result).result.other_requests
    energy = result.energy
    assert energy is not None
    assert energy.gross_joules_per_output_token is not None
    alone = others == 0
    known = [
        value is not None
        for value in (energy.net_joules_per_output_token, energy.baseline_watts, energy.phases)
    ]
    assert known == [alone] * 3


async def test_closing_a_benchmark_leaves_no_task_behind(telemetry: Telemetry) -> None:
    events = run_benchmark(
        BenchmarkPlan(8, 8, 500), SlowTokens().generate, telemetry, context_tokens=CONTEXT_TOKENS, weights_bytes=7,
        idle_seconds=0,
    )  # fmt: skip
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    before = asyncio.all_tasks()
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await events.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before
