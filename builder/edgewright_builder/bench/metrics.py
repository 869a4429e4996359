"""The figures of a benchmark by name: the paper's Table 5 (size, throughput, TPOT, ITL), and what a user asks next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgewright.sizes import format_bytes
from edgewright.v1.telemetry_pb2 import BenchmarkEnergy, BenchmarkResult, PhaseEnergy
from edgewright_builder.bench.results import Bench

LATENCIES = {
    "TTFT": "time_to_first_token_seconds",
    "TPOT": "time_per_output_token_seconds",
    "ITL": "inter_token_latency_seconds",
    "end to end": "end_to_end_seconds",
}
STATISTICS = ("mean", "p50", "p90", "p99", "max")


@dataclass(frozen=True)
class Metric:
    """One figure: None where it was not measured. `show` writes it with its unit."""

    name: str
    of: Callable[[BenchmarkResult], float | None]
    show: Callable[[float], str]


def show_latency(seconds: float) -> str:
    """`12.3 ms`; whole milliseconds from a second on, seconds from ten."""
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.{1 if seconds < 1 else 0}f} ms"


def show_rate(per_second: float) -> str:
    """Returns tokens a second as text."""
    return f"{per_second:.1f} tok/s"


def show_joules(joules: float) -> str:
    """`0.412 J`, `3.1 mJ`."""
    text = f"{joules:.3g} J" if abs(joules) >= 0.1 else f"{joules * 1e3:.3g} mJ"
    return text.replace("-", "−")


def requests_per_second(result: BenchmarkResult) -> float | None:
    """Prompts answered in a second."""
    served = result.prompts - result.prompts_failed
    return served / result.duration_seconds if result.duration_seconds else None


THROUGHPUTS = (
    Metric("throughput, output", lambda result: result.generated_tokens_per_second, show_rate),
    Metric("throughput, total", lambda result: result.total_tokens_per_second, show_rate),
    Metric("requests", requests_per_second, lambda value: f"{value:.3g} /s"),
)


def comparable() -> tuple[Metric, ...]:
    """Returns every figure two results can be compared by, the paper's first."""
    return (
        Metric("size", lambda result: result.weights_bytes or None, lambda value: format_bytes(round(value))),
        *THROUGHPUTS,
        *_latencies(("TPOT", "ITL", "TTFT", "end to end")),
        Metric("peak memory", _peak, lambda value: format_bytes(round(value))),
        Metric("energy per token, gross", _energy("gross_joules_per_output_token"), show_joules),
        Metric("energy per token, net", _energy("net_joules_per_output_token"), show_joules),
        Metric("prefill, per input token", _phase("prefill_joules_per_input_token"), show_joules),
        Metric("decode, per output token", _phase("decode_joules_per_output_token"), show_joules),
    )


def over_repeats(bench: Bench, metric: Metric) -> tuple[float, float, float] | None:
    """(typical, lowest, highest) over the runs; None unless every run has it."""
    values = [metric.of(run) for run in bench.runs]
    known = [value for value in values if value is not None]
    typical = metric.of(bench.typical)
    if typical is None or len(known) < len(values):
        return None
    return typical, min(known), max(known)


def _latencies(names: Iterable[str]) -> list[Metric]:
    def of(field: str, statistic: str) -> Callable[[BenchmarkResult], float | None]:
        def value(result: BenchmarkResult) -> float | None:
            values = getattr(result, field)
            return getattr(values, statistic) if values.count else None

        return value

    return [
        Metric(f"{name} {statistic}", of(LATENCIES[name], statistic), show_latency)
        for name in names
        for statistic in ("mean", "p99")
    ]


def _peak(result: BenchmarkResult) -> float | None:
    return result.engine_peak_bytes if result.HasField("engine_peak_bytes") else None


def _energy(field: str) -> Callable[[BenchmarkResult], float | None]:
    return lambda result: _field(result.energy, field) if result.HasField("energy") else None


def _phase(field: str) -> Callable[[BenchmarkResult], float | None]:
    return lambda result: _field(result.energy.phases, field) if result.energy.HasField("phases") else None


def _field(message: BenchmarkEnergy | PhaseEnergy, name: str) -> float | None:
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if descriptor.has_presence and not message.HasField(name):  # type: ignore[arg-type]
        return None
    return float(getattr(message, name))
