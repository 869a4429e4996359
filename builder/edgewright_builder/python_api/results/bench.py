"""What serving costs: the result of `Board.bench`, `bench_local` and `open_bench`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.v1.telemetry_pb2 import BenchmarkResult
from edgewright_builder.bench import tables
from edgewright_builder.bench.results import Bench, BenchSubject, bench_from_json
from edgewright_builder.device_client.messages import from_message
from edgewright_builder.python_api.results.telemetry import LatencyDistribution
from edgewright_builder.show.document import document
from edgewright_builder.show.sheet import Facts, Grid, Lines, Sheet, shown


@dataclass(frozen=True)
class PhaseEnergyFigures:
    """Prefill (arrival to first token) and decode apart, from prompts that were served one at a time."""

    prompts: int
    prefill_joules_per_input_token: float
    decode_joules_per_output_token: float
    net_prefill_joules_per_input_token: float | None  # less the idle baseline
    net_decode_joules_per_output_token: float | None


@dataclass(frozen=True)
class BenchEnergy:
    """Energy of a run on one rail. A run with gaps has no joules, and says how many gaps there were."""

    rail: str
    whole_module: bool
    gross_joules_per_output_token: float | None
    net_joules_per_output_token: float | None  # less the idle baseline
    mean_watts: float | None
    baseline_watts: float | None
    samples: int
    gaps: int
    phases: PhaseEnergyFigures | None


@dataclass(frozen=True)
class BenchRun:
    """One run of the load. Latencies are in seconds, from arrival, queueing included."""

    prompts: int
    prompts_failed: int
    input_tokens: int  # mean over the prompts served
    output_tokens: int
    concurrency: int
    duration_seconds: float
    generated_tokens_per_second: float
    total_tokens_per_second: float
    time_to_first_token_seconds: LatencyDistribution
    time_per_output_token_seconds: LatencyDistribution
    inter_token_latency_seconds: LatencyDistribution
    end_to_end_seconds: LatencyDistribution
    engine_peak_bytes: int | None
    energy: BenchEnergy | None  # None: no energy sensor
    weights_bytes: int
    engine_batches: bool | None
    throttle_events: int | None
    seed: int
    requests_together: int | None
    other_requests: int


@shown
@dataclass(frozen=True)
class BenchReport:
    """A benchmark: what was measured where, the typical run, every repeat, and what this host saw over the link."""

    measured: BenchSubject
    result: BenchRun  # of median throughput
    runs: tuple[BenchRun, ...]
    host: BenchRun | None = None  # the same load sent from here
    link_seconds: LatencyDistribution | None = None  # what the link adds to the first token
    compared_with: BenchReport | None = None

    def compared(self, before: BenchReport) -> BenchReport:
        """Returns this result with an earlier one beside it."""
        return replace(self, compared_with=replace(before, compared_with=None))

    def plot(self, path: str | Path) -> Path:
        """Draws it on an HTML page of its own; returns the page's path. Raises InputError if it can't be written."""
        from edgewright_builder.report.bench_page import write_bench_page

        write_bench_page(Path(path), self.bench(), self._before())
        return Path(path)

    def bench(self) -> Bench:
        """Returns the messages it was made from, as reports and files hold them."""
        return bench_from_json(document(self))

    def _before(self) -> Bench | None:
        return None if self.compared_with is None else self.compared_with.bench()

    def _sheet(self) -> Sheet:
        result, before = self.bench(), self._before()
        parts: list[Facts | Grid | Lines] = [
            Facts(self.measured.where or result.title, tables.facts(result)),
            Grid(*tables.throughput(result)),
            Grid(tables.LATENCY_COLUMNS, tables.latency_rows(result)),
        ]
        if before is not None:
            parts += [
                Grid(*tables.comparison(before, result)),
                Lines(tables.unlike(before, result), "yellow"),
            ]
        return Sheet(parts, self._pictures)

    def _pictures(self) -> Mapping[str, str]:
        from edgewright_builder.report.bench_figures import bench_figures

        return {title: str(svg) for title, svg in bench_figures(self.bench(), self._before()).items()}


def bench_report(bench: Bench) -> BenchReport:
    """Returns a bench as a result."""
    link = bench.link_seconds
    return BenchReport(
        measured=bench.subject,
        result=_run(bench.typical),
        runs=tuple(map(_run, bench.runs)),
        host=None if bench.host is None else _run(bench.host),
        link_seconds=None if link is None else from_message(LatencyDistribution, link),
    )


def _run(message: BenchmarkResult) -> BenchRun:
    return from_message(BenchRun, message)
