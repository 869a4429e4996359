"""The benchmark where the energy sensor falls silent: what it took then is in no counter."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from edgewright_agent.benchmark.benchmark import BenchmarkEnergy, BenchmarkResult, run_benchmark
from edgewright_agent.benchmark.load import BenchmarkPlan
from edgewright_agent.benchmark.proto import benchmark_to_proto
from edgewright_agent.engines import Finish, GenerationRequest, Token
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_profiles import load_profile
from tests.agent.telemetry.test_telemetry import Clock
from tests.fixtures.boards import write_board

PLAN = BenchmarkPlan(prompts=2, input_tokens=8, output_tokens=20)


class SampledEngine:
    """Its tokens take 0.1 s each of a clock that only it moves; the sensor is read after each."""

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.telemetry = Telemetry(
            load_profile("jetson-orin-nano-8gb"), write_board("orin-nano", root), clock=self.clock
        )
        self.telemetry.sample()
        self.in_the_middle: Callable[[], object] = lambda: None  # of the first answer

    async def generate(
        self, request: GenerationRequest, client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        for number in range(request.max_tokens):
            if number == PLAN.output_tokens // 2:
                self.in_the_middle()
                self.in_the_middle = lambda: None
            self.clock.advance(0.1)
            self.telemetry.sample()
            yield Token("x", number, self.clock())
        yield Finish("length", len((request.prompt or "").split()), request.max_tokens)

    async def benchmark(self) -> BenchmarkResult:
        events = run_benchmark(
            PLAN, self.generate, self.telemetry, context_tokens=256, weights_bytes=7, idle_seconds=0
        )
        result = [event async for event in events][-1]
        assert isinstance(result, BenchmarkResult)
        return result


@pytest.fixture
def engine(tmp_path: Path) -> SampledEngine:
    return SampledEngine(tmp_path)


def figures(energy: BenchmarkEnergy | None) -> tuple[float | None, ...]:
    assert energy is not None
    return energy.gross_joules_per_output_token, energy.net_joules_per_output_token, energy.mean_watts


async def test_energy_per_token_is_absent_where_the_sensor_had_a_gap(engine: SampledEngine) -> None:
    engine.in_the_middle = lambda: engine.clock.advance(5.0)
    result = await engine.benchmark()
    assert result.energy is not None
    assert (result.energy.gaps, figures(result.energy)) == (1, (None, None, None))
    assert result.energy.phases is not None  # of the request without a gap
    assert result.energy.phases.prompts == 1
    message = benchmark_to_proto(result).result.energy
    for name in ("gross_joules_per_output_token", "net_joules_per_output_token", "mean_watts"):
        assert not message.HasField(name)


async def test_a_sensor_that_does_not_come_back_leaves_a_gap(engine: SampledEngine, tmp_path: Path) -> None:
    engine.in_the_middle = lambda: shutil.rmtree(tmp_path / "sys")
    energy = (await engine.benchmark()).energy
    assert energy is not None
    assert (energy.gaps, figures(energy)) == (1, (None, None, None))


async def test_energy_per_token_is_there_where_the_sensor_had_none(engine: SampledEngine) -> None:
    energy = (await engine.benchmark()).energy
    gross, net, watts = figures(energy)
    assert gross == pytest.approx(0.5056, rel=0.01)
    assert watts == pytest.approx(5.056, rel=0.01)
    assert net is None  # no baseline was taken


async def test_a_sensor_that_is_gone_when_the_idle_board_is_measured_gives_no_baseline(
    engine: SampledEngine, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "sys")
    events = run_benchmark(
        PLAN, engine.generate, engine.telemetry, context_tokens=256, weights_bytes=7, idle_seconds=0.01
    )
    result = [event async for event in events][-1]
    assert isinstance(result, BenchmarkResult)
    assert result.energy is not None
    assert (result.energy.baseline_watts, result.energy.gaps) == (None, 1)


async def test_a_rail_that_begins_to_speak_for_the_board_during_a_run_leaves_no_energy(
    engine: SampledEngine, tmp_path: Path
) -> None:
    label = tmp_path / "sys/class/hwmon/hwmon1/in1_label"
    label.rename(tmp_path / "later")  # VDD_IN, the whole module
    engine.telemetry = Telemetry(load_profile("jetson-orin-nano-8gb"), tmp_path, clock=engine.clock)
    part = engine.telemetry.energy()
    engine.in_the_middle = lambda: (tmp_path / "later").rename(label)
    result = await engine.benchmark()
    module = engine.telemetry.energy()
    assert part is not None
    assert module is not None
    assert (part.name, module.name) == ("VDD_CPU_GPU_CV", "VDD_IN")
    assert result.energy is None
