"""Telemetry sent to an OpenTelemetry collector over OTLP/HTTP, under OpenTelemetry's own names.

Requests: `gen_ai.server.*` (semantic conventions for generative AI, in development). Hardware: `hw.*`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from edgewright import __version__
from edgewright_agent.telemetry.exporters.prometheus import (
    DURATION_SECONDS,
    FIRST_TOKEN_SECONDS,
    OUTPUT_TOKEN_SECONDS,
)
from edgewright_agent.telemetry.types import REJECTIONS, EndedRequest, Snapshot

EXPORT_SECONDS = 15.0
DURATION, FIRST_TOKEN, OUTPUT_TOKEN, TOKENS = (
    "gen_ai.server.request.duration", "gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token",
    "gen_ai.client.token.usage",
)  # fmt: skip
_BUCKETS = {
    DURATION: DURATION_SECONDS, FIRST_TOKEN: FIRST_TOKEN_SECONDS, OUTPUT_TOKEN: OUTPUT_TOKEN_SECONDS,
    TOKENS: [4**power for power in range(14)],
}  # fmt: skip

Subscribe = Callable[[Callable[[EndedRequest], None]], None]
Rows = Iterable[Observation]


def export(url: str, snapshot: Callable[[], Snapshot], subscribe: Subscribe) -> Callable[[], None]:
    """Exports every 15 s in a thread of its own; returns how to stop. A collector that is away is tried again."""
    exporter = OTLPMetricExporter(endpoint=f"{url.rstrip('/')}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=EXPORT_SECONDS * 1000)
    return instrument(reader, snapshot, subscribe)


def instrument(
    reader: MetricReader,
    snapshot: Callable[[], Snapshot],
    subscribe: Subscribe,
) -> Callable[[], None]:
    """Makes every instrument, read by `reader`; returns how to stop."""
    views = [
        View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(buckets))
        for name, buckets in _BUCKETS.items()
    ]
    resource = Resource.create({"service.name": "edgewright-agent", "service.version": __version__})
    provider = MeterProvider([reader], resource=resource, views=views)
    meter = provider.get_meter("edgewright", __version__)
    subscribe(_request_recorder(meter))
    _hardware(meter, snapshot)
    return provider.shutdown


def _request_recorder(meter: Meter) -> Callable[[EndedRequest], None]:
    duration = meter.create_histogram(DURATION, "s")
    first_token = meter.create_histogram(FIRST_TOKEN, "s")
    output_token = meter.create_histogram(OUTPUT_TOKEN, "s")
    tokens = meter.create_histogram(TOKENS, "{token}")

    def record(ended: EndedRequest) -> None:
        attributes = {
            "gen_ai.operation.name": ended.operation,
            "gen_ai.provider.name": "edgewright",
            "gen_ai.response.model": ended.served_by.model,
        }
        if ended.finish_reason in ("error", *REJECTIONS):
            attributes["error.type"] = ended.finish_reason
        duration.record(ended.duration_seconds, attributes)
        if ended.time_to_first_token_seconds is not None:
            first_token.record(ended.time_to_first_token_seconds, attributes)
        if ended.time_per_output_token_seconds is not None:
            output_token.record(ended.time_per_output_token_seconds, attributes)
        for kind, count in (("input", ended.prompt_tokens), ("output", ended.generated_tokens)):
            if count:  # a request that broke off has not told how many it had
                tokens.record(count, {**attributes, "gen_ai.token.type": kind})

    return record


def _hardware(meter: Meter, snapshot: Callable[[], Snapshot]) -> None:
    def rows(of: Callable[[Snapshot], Rows]) -> Callable[[CallbackOptions], Rows]:
        return lambda options: of(snapshot())

    meter.create_observable_counter("hw.energy", [rows(_joules)], "J")
    meter.create_observable_gauge("hw.power", [rows(_watts)], "W")
    meter.create_observable_gauge("hw.temperature", [rows(_celsius)], "Cel")
    meter.create_observable_gauge("edgewright.engine.memory.peak", [rows(_engine_peak)], "By")
    meter.create_observable_gauge("edgewright.memory.budget", [rows(_budget)], "By")


def _joules(snapshot: Snapshot) -> Rows:
    return [
        Observation(rail.joules, {"hw.id": rail.name, "hw.type": "power_supply"}) for rail in snapshot.energy
    ]


def _watts(snapshot: Snapshot) -> Rows:
    return [
        Observation(rail.watts, {"hw.id": rail.name, "hw.type": "power_supply"})
        for rail in snapshot.energy
        if rail.watts is not None
    ]


def _celsius(snapshot: Snapshot) -> Rows:
    return [Observation(zone.celsius, {"hw.id": zone.zone}) for zone in snapshot.temperatures]


def _engine_peak(snapshot: Snapshot) -> Rows:
    engine = snapshot.memory.engine if snapshot.memory else None
    return [Observation(engine.peak_bytes)] if engine and engine.peak_bytes is not None else []


def _budget(snapshot: Snapshot) -> Rows:
    memory = snapshot.memory
    return [] if memory is None or memory.budget_bytes is None else [Observation(memory.budget_bytes)]
