"""A bench as people read it: facts, then tables of throughput and latency; and two of them side by side."""

from __future__ import annotations

from edgewright.sizes import format_bytes
from edgewright.v1.telemetry_pb2 import BenchmarkEnergy, BenchmarkResult, Distribution
from edgewright_builder.bench.metrics import (
    LATENCIES,
    STATISTICS,
    THROUGHPUTS,
    comparable,
    over_repeats,
    show_joules,
    show_latency,
)
from edgewright_builder.bench.results import Bench, BenchSubject

Rows = list[tuple[str, ...]]
Facts = list[tuple[str, str]]
INPUT_TOLERANCE = 0.05
LATENCY_COLUMNS = ("latency", "", *STATISTICS)


def shape_of(result: BenchmarkResult) -> str:
    """Returns the load: how many prompts, how long, how many at once."""
    return (
        f"{_served(result)}, {result.input_tokens} tokens in, {result.output_tokens} out, "
        f"{result.concurrency} at once"
    )


def turns_of(result: BenchmarkResult) -> str:
    """Returns how many requests are computed together; empty if not known, or if there was one at a time."""
    if not result.HasField("requests_together") or result.concurrency == 1:
        return ""
    if result.requests_together >= result.concurrency:
        return "computed together"
    if result.requests_together == 1:
        return "one after another: TTFT holds the wait"
    return f"{result.requests_together} computed together, the others wait: TTFT holds that"


def facts(bench: Bench) -> Facts:
    """Returns what was measured where, and all that is one number."""
    result, subject = bench.typical, bench.subject
    rows = [("model", ", ".join(part for part in (subject.model, subject.precision, subject.engine) if part))]
    rows += [("load", shape_of(result))]
    rows += [("requests at once", turns_of(result))] if turns_of(result) else []
    rows += (
        [("repeats", f"{len(bench.runs)}; shown is the one of median throughput")] if bench.runs[1:] else []
    )
    rows += [("size", size_of(bench))]
    rows += [("peak memory", peak_of(result, subject))]
    rows += [("power mode", subject.power_mode)] if subject.power_mode else []
    rows += (
        [("throttled", f"{result.throttle_events} times during the run")] if result.throttle_events else []
    )
    if result.other_requests:
        others = (
            f"{result.other_requests} requests of other clients: their time and energy is in these figures"
        )
        rows += [("not alone", others)]
    return [*rows, *energy_facts(result)]


def size_of(bench: Bench) -> str:
    """Bytes of the engine's files, beside what the same weights take at 16 bits."""
    size, at_16_bits = bench.typical.weights_bytes, bench.subject.weights_16bit_bytes
    beside = (
        f" ({format_bytes(at_16_bits)} at 16 bits, {at_16_bits / size:.2f} ×)" if at_16_bits and size else ""
    )
    return f"{format_bytes(size)}{beside}"


def energy_facts(result: BenchmarkResult) -> Facts:
    """Joules per token; or that no sensor answered, or not always."""
    if not result.HasField("energy"):
        return [("energy", "no energy sensor, so no figure")]
    energy = result.energy
    rows = _whole_run(energy)
    if energy.HasField("phases"):
        rows += _phases(energy)
    mean = f"{energy.mean_watts:.2f} W mean, " if energy.HasField("mean_watts") else ""
    return [*rows, ("power", f"{mean}{energy.samples} samples, {energy.gaps} gaps")]


def _whole_run(energy: BenchmarkEnergy) -> Facts:
    if not energy.HasField("gross_joules_per_output_token"):
        return [("energy per token", f"no figure: {gaps_of(energy)}")]
    scope = "whole module" if energy.whole_module else "a part of the board"
    gross = f"{show_joules(energy.gross_joules_per_output_token)} ({energy.rail}, {scope})"
    rows = [("energy per token, gross", gross)]
    if energy.HasField("net_joules_per_output_token"):
        idle = f"less the idle {energy.baseline_watts:.2f} W"
        rows.append(("energy per token, net", f"{show_joules(energy.net_joules_per_output_token)} ({idle})"))
    return rows


def gaps_of(energy: BenchmarkEnergy) -> str:
    """Returns why a run has no joules per token."""
    times = "once" if energy.gaps == 1 else f"{energy.gaps} times"
    return f"{energy.rail} was silent for over a second {times}, and what was used meanwhile is not known"


def throughput(bench: Bench) -> tuple[tuple[str, ...], Rows]:
    """Columns and rows: requests and tokens a second, as the board measured it and as this machine saw it."""
    repeated, host = len(bench.runs) > 1, bench.host
    columns = ["throughput", _view(bench)]
    columns += ["range of repeats"] if repeated else []
    columns += [f"seen here ({_served(host)})"] if host else []
    rows: Rows = []
    for metric in THROUGHPUTS:
        values = over_repeats(bench, metric)
        if values is None:
            continue
        typical, low, high = (metric.show(value) for value in values)
        row = [metric.name.removeprefix("throughput, "), typical]
        row += [f"{low.split()[0]} to {high}"] if repeated else []
        here = metric.of(host) if host else None
        row += [metric.show(here) if here is not None else ""] if host else []
        rows.append(tuple(row))
    return tuple(columns), rows


def _served(result: BenchmarkResult) -> str:
    failed = f", {result.prompts_failed} failed" if result.prompts_failed else ""
    return f"{result.prompts} prompts{failed}"


def latency_rows(bench: Bench) -> Rows:
    """Mean and percentiles of every latency, both views under each other."""
    rows: Rows = []
    for name, field in LATENCIES.items():
        views = [(_view(bench), getattr(bench.typical, field))]
        views += [("seen here", getattr(bench.host, field))] if bench.host else []
        views = [(view, values) for view, values in views if values.count]
        rows += [
            (name if index == 0 else "", view, *_statistics(values))
            for index, (view, values) in enumerate(views)
        ]
    if bench.link_seconds is not None and bench.link_seconds.count:
        rows.append(("link", "adds to TTFT", *_statistics(bench.link_seconds)))
    return rows


def comparison(before: Bench, after: Bench) -> tuple[tuple[str, ...], Rows]:
    """Columns and rows of both, with after ÷ before; figures that neither has are left out."""
    rows: Rows = _size_at_16_bits(before, after)
    for metric in comparable():
        one, two = metric.of(before.typical), metric.of(after.typical)
        if one is None and two is None:
            continue
        shown = [metric.show(value) if value is not None else "not measured" for value in (one, two)]
        ratio = f"{two / one:.2f} ×" if one and two is not None else ""
        rows.append((metric.name, *shown, ratio))
    return ("", title_of(before), title_of(after), "after ÷ before"), rows


def _size_at_16_bits(before: Bench, after: Bench) -> Rows:
    """Returns the paper's row: what the weights were at 16 bits, also where they were measured at 32."""
    at_16_bits, size = before.subject.weights_16bit_bytes, after.typical.weights_bytes
    if not at_16_bits or not size:
        return []
    return [
        (
            "size, before at 16 bits",
            format_bytes(at_16_bits),
            format_bytes(size),
            f"{size / at_16_bits:.2f} ×",
        )
    ]


def unlike(before: Bench, after: Bench) -> list[str]:
    """Returns why the two can't be compared number by number; empty if they can."""
    sentences = []
    if not _same_load(before.typical, after.typical):
        sentences.append(f"The loads differ: {shape_of(before.typical)}; and {shape_of(after.typical)}.")
    if before.subject.device != after.subject.device:
        names = [subject.device or subject.where or "unknown" for subject in (before.subject, after.subject)]
        sentences.append(f"The machines differ: {names[0]}; and {names[1]}.")
    return sentences


def _same_load(one: BenchmarkResult, two: BenchmarkResult) -> bool:
    """Prompts of random words are nearly, not exactly, of the length that was asked for."""
    apart = abs(one.input_tokens - two.input_tokens)
    near = apart <= INPUT_TOLERANCE * max(one.input_tokens, two.input_tokens)
    return near and (one.output_tokens, one.concurrency) == (two.output_tokens, two.concurrency)


def title_of(bench: Bench) -> str:
    """Returns what a column of this bench is called."""
    subject = bench.subject
    return (
        ", ".join(part for part in (subject.precision or subject.model, subject.where) if part)
        or "earlier result"
    )


def _view(bench: Bench) -> str:
    return "here" if bench.subject.where == "this machine" else "on the board"


def _statistics(values: Distribution) -> tuple[str, ...]:
    return tuple(show_latency(getattr(values, statistic)) for statistic in STATISTICS)


def peak_of(result: BenchmarkResult, subject: BenchSubject) -> str:
    """Returns the engine's highest memory since it was started, against the budget."""
    if not result.HasField("engine_peak_bytes"):
        return "not measured"
    budget = f" of {format_bytes(subject.budget_bytes)} budget" if subject.budget_bytes else ""
    return format_bytes(result.engine_peak_bytes) + budget


def _phases(energy: BenchmarkEnergy) -> Facts:
    phases = energy.phases
    alone = f"{phases.prompts} prompts served alone"

    def line(gross: float, net: float | None) -> str:
        return f"{show_joules(gross)}{'' if net is None else f', net {show_joules(net)}'} ({alone})"

    prefill_net = phases.net_prefill_joules_per_input_token
    decode_net = phases.net_decode_joules_per_output_token
    has_prefill, has_decode = (
        phases.HasField("net_prefill_joules_per_input_token"), phases.HasField("net_decode_joules_per_output_token"),
    )  # fmt: skip
    return [
        (
            "prefill, per input token",
            line(phases.prefill_joules_per_input_token, prefill_net if has_prefill else None),
        ),
        (
            "decode, per output token",
            line(phases.decode_joules_per_output_token, decode_net if has_decode else None),
        ),
    ]
