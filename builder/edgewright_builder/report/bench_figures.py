"""Pictures of a bench: latency percentiles, throughput, memory against the budget, energy per token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from edgewright.sizes import format_bytes
from edgewright.v1.telemetry_pb2 import BenchmarkResult
from edgewright_builder.bench.metrics import LATENCIES, STATISTICS, show_joules, show_latency
from edgewright_builder.bench.results import Bench
from edgewright_builder.report.charts import Bar, Reference, bar_chart
from edgewright_builder.report.formats import byte_unit, show_tick
from edgewright_builder.report.grouped_bars import View, grouped_bar_chart

TITLES = {
    "TTFT": "Time to first token",
    "TPOT": "Time per output token",
    "ITL": "Inter-token latency",
    "end to end": "End-to-end latency",
}


def views_of(bench: Bench, before: Bench | None) -> list[tuple[str, str, BenchmarkResult]]:
    """Name, colour and figures of each view that there is: before quantization, after it, and seen from the host."""
    views = [("before", "s5", before.typical)] if before else []
    where = "this machine" if bench.subject.where == "this machine" else "on the board"
    views.append(("after" if before else where, "s1", bench.typical))
    return [*views, ("seen from the host", "s3", bench.host)] if bench.host else views


def bench_figures(bench: Bench, before: Bench | None = None) -> dict[str, Markup]:
    """Returns every picture by its title; those without data are left out."""
    views = views_of(bench, before)
    pictures = {TITLES[name]: _latency(name, field, views) for name, field in LATENCIES.items()}
    pictures["Throughput"] = _throughput(views)
    pictures["Memory"] = _memory(bench, before)
    pictures["Energy per token"] = _energy(bench, before)
    return {title: picture for title, picture in pictures.items() if picture is not None}


def _latency(name: str, field: str, views: Sequence[tuple[str, str, BenchmarkResult]]) -> Markup | None:
    known = [view for view in views if getattr(view[2], field).count]
    if not known:
        return None
    longest = max(getattr(result, field).max for _, _, result in known)
    unit, size = ("seconds", 1.0) if longest >= 10 else ("milliseconds", 1e-3)
    drawn = [
        View(title, class_, [_sized(getattr(getattr(result, field), each), size) for each in STATISTICS])
        for title, class_, result in known
    ]
    return grouped_bar_chart(STATISTICS, drawn, unit, show_tick, description=TITLES[name])


def _sized(seconds: float, unit_seconds: float) -> tuple[float, str]:
    text = f"{seconds:.1f} s" if unit_seconds == 1.0 else show_latency(seconds)
    return seconds / unit_seconds, text


def _throughput(views: Sequence[tuple[str, str, BenchmarkResult]]) -> Markup:
    def pair(rate: float) -> tuple[float, str]:
        return rate, f"{rate:.1f}"

    drawn = [
        View(title, class_, [pair(result.generated_tokens_per_second), pair(result.total_tokens_per_second)])
        for title, class_, result in views
    ]
    return grouped_bar_chart(
        ("output", "in + out"), drawn, "tokens per second", show_tick, description="Throughput"
    )


def _memory(bench: Bench, before: Bench | None) -> Markup | None:
    results = [("before", "s5", before.typical)] if before else []
    results.append(("after" if before else "peak", "s1", bench.typical))
    peaks = [(name, class_, one.engine_peak_bytes) for name, class_, one in results if one.engine_peak_bytes]
    if not peaks:
        return None
    budget = bench.subject.budget_bytes
    unit, size = byte_unit(max(budget or 0, *(peak for _, _, peak in peaks)))
    bars = [Bar(name, peak / size, format_bytes(peak), class_=class_) for name, class_, peak in peaks]
    limit = [Reference(budget / size, f"budget {format_bytes(budget)}")] if budget else []
    title = f"peak memory of the engine, {unit}"
    return bar_chart(bars, title, show_tick, references=limit, width=470, description=title)


def _energy(bench: Bench, before: Bench | None) -> Markup | None:
    results = [("before", "s5", before.typical)] if before else []
    results.append(("after" if before else "energy", "s1", bench.typical))
    views = [
        View(name, class_, [_joules(get, result) for get in ENERGIES.values()])
        for name, class_, result in results
    ]
    drawn = [view for view in views if any(view.values)]
    if not drawn:
        return None
    return grouped_bar_chart(
        tuple(ENERGIES), drawn, "joules per token", show_tick, description="Energy per token"
    )


def _optional(message: object, field: str) -> float | None:
    return getattr(message, field) if message.HasField(field) else None  # type: ignore[attr-defined]


ENERGIES: dict[str, Callable[[BenchmarkResult], float | None]] = {
    "gross": lambda result: _optional(result.energy, "gross_joules_per_output_token"),
    "net of idle": lambda result: _optional(result.energy, "net_joules_per_output_token"),
    "prefill, per input token": lambda result: (
        result.energy.phases.prefill_joules_per_input_token if result.energy.HasField("phases") else None
    ),
    "decode, per output token": lambda result: (
        result.energy.phases.decode_joules_per_output_token if result.energy.HasField("phases") else None
    ),
}


def _joules(
    get: Callable[[BenchmarkResult], float | None], result: BenchmarkResult
) -> tuple[float, str] | None:
    joules = get(result)
    return None if joules is None else (joules, show_joules(joules))
