"""Telemetry in Prometheus' text format: `http://HOST:PORT/metrics`, on loopback unless told otherwise.

A sensor that does not answer has no metric, and `edgewright_sensor_available{sensor="…"} 0`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright_agent.runtime.file_handles import metrics_connections_max
from edgewright_agent.telemetry.exporters.phase_changes import Changes
from edgewright_agent.telemetry.types import (
    REJECTIONS,
    Deployment,
    EndedRequest,
    MemoryUsage,
    Snapshot,
    StoreUsage,
)

# OpenTelemetry's buckets for generative AI servers, with room for a board: slower first tokens, faster next ones.
FIRST_TOKEN_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 60.0,
)  # fmt: skip
OUTPUT_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)

SCRAPE_SECONDS = 10.0


@dataclass(frozen=True)
class Sources:
    """The functions that the figures come from."""

    snapshot: Callable[[], Snapshot]
    deployment: Callable[[], Deployment]
    subscribe: Callable[[Callable[[EndedRequest], None]], None]
    changes: Changes = field(default_factory=Changes)
    stored: Callable[[], StoreUsage] | None = None


class Requests:
    """Counters and histograms of requests, labelled with the release that served them and its engine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("model", "release", "backend")
        self._duration = Histogram(
            "edgewright_request_duration_seconds", "Arrival, before any wait, to last token.",
            (*labels, "finish_reason"),
            buckets=DURATION_SECONDS, registry=registry,
        )  # fmt: skip
        self._first_token = Histogram(
            "edgewright_time_to_first_token_seconds", "Arrival, before any wait, to first token.", labels,
            buckets=FIRST_TOKEN_SECONDS, registry=registry,
        )  # fmt: skip
        self._output_token = Histogram(
            "edgewright_time_per_output_token_seconds", "(last - first token) / (tokens - 1).", labels,
            buckets=OUTPUT_TOKEN_SECONDS, registry=registry,
        )  # fmt: skip
        self._prompt_tokens = Counter("edgewright_prompt_tokens", "Tokens read.", labels, registry=registry)
        self._generated_tokens = Counter(
            "edgewright_generated_tokens", "Tokens generated.", labels, registry=registry
        )
        self._rejected = Counter(
            "edgewright_requests_rejected", "Requests turned away.", ("reason",), registry=registry
        )

    def observe(self, ended: EndedRequest) -> None:
        """Counts a request that is over."""
        if ended.finish_reason in REJECTIONS:
            self._rejected.labels(ended.finish_reason).inc()
            return
        by = ended.served_by
        labels = (by.model, by.release[:12], by.engine)
        self._duration.labels(*labels, ended.finish_reason).observe(ended.duration_seconds)
        self._prompt_tokens.labels(*labels).inc(ended.prompt_tokens)
        self._generated_tokens.labels(*labels).inc(ended.generated_tokens)
        if ended.time_to_first_token_seconds is not None:
            self._first_token.labels(*labels).observe(ended.time_to_first_token_seconds)
        if ended.time_per_output_token_seconds is not None:
            self._output_token.labels(*labels).observe(ended.time_per_output_token_seconds)


class BoardCollector(Collector):
    """Collects what is measured at the moment of the scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yields all metric families."""
        snapshot = self._sources.snapshot()
        yield _gauge(
            "requests_in_flight", "Requests admitted and not over.", snapshot.serving.requests_in_flight
        )
        yield from _energy(snapshot)
        if snapshot.memory is not None:
            yield from _memory(snapshot.memory)
        yield from _board(snapshot)
        yield from _release(self._sources.deployment())
        yield from _changes(self._sources.changes)
        if self._sources.stored is not None:
            yield from _stored(self._sources.stored())

    def describe(self) -> list[Metric]:
        """Describes nothing in advance: sensors differ between boards."""
        return []


def serve_metrics(address: Address, sources: Sources) -> tuple[Address, Callable[[], None]]:
    """Answers scrapes in a thread of its own; returns where, and how to stop. Raises InputError: port in use."""
    registry = CollectorRegistry()
    sources.subscribe(Requests(registry).observe)
    registry.register(BoardCollector(sources))
    try:
        server = make_server(address.host, address.port, make_wsgi_app(registry), _Server, _Handler)
    except OSError as error:
        raise InputError(
            f"Metrics can't be served on {address} ({error.strerror}); choose another."
        ) from None
    stopping = os.eventfd(0, os.EFD_CLOEXEC)
    thread = threading.Thread(target=server.serve_until, args=(stopping,), name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        os.eventfd_write(stopping, 1)
        thread.join()
        server.server_close()
        os.close(stopping)

    return Address(address.host, server.server_port), stop


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Logs nothing: anybody could fill the log."""


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread for each connection, and few connections. One too many is closed at once."""

    daemon_threads = True
    timeout = 0  # a client that has left again is not waited for

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(metrics_connections_max())
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        super().__init__(address, handler)

    def serve_until(self, stopping: int) -> None:
        """Answers connections until the event at this handle is set.

        `serve_forever` would look twice a second whether it is to stop, and stop up to half a second late.
        """
        with selectors.PollSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(stopping, selectors.EVENT_READ)
            while all(key.fd != stopping for key, _ in selector.select()):
                self.handle_request()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is a place for one more connection."""
        return self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers one connection, ends it if that takes too long, and gives its place back."""
        deadline = threading.Timer(SCRAPE_SECONDS, _end, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._places.release()


def _end(connection: socket.socket) -> None:
    """Ends a connection that may have been closed."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"edgewright_{name}", text, value=value)


def _labelled(family: Metric, rows: Sequence[tuple[tuple[str, ...], float]]) -> Iterator[Metric]:
    """Yields the family with these rows; nothing if there are none."""
    for labels, value in rows:
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    if rows:
        yield family


def _energy(snapshot: Snapshot) -> Iterator[Metric]:
    rails = [((rail.name, "module" if rail.whole_module else "part"), rail) for rail in snapshot.energy]
    joules = CounterMetricFamily("edgewright_energy_joules", "Energy since start.", labels=("rail", "scope"))
    watts = GaugeMetricFamily("edgewright_power_watts", "Mean of the last second.", labels=("rail", "scope"))
    samples = CounterMetricFamily("edgewright_energy_samples", "Readings.", labels=("rail", "scope"))
    gaps = CounterMetricFamily("edgewright_energy_gaps", "Over 1 s without.", labels=("rail", "scope"))
    yield from _labelled(joules, [(labels, rail.joules) for labels, rail in rails])
    yield from _labelled(watts, [(labels, rail.watts) for labels, rail in rails if rail.watts is not None])
    yield from _labelled(samples, [(labels, rail.samples) for labels, rail in rails])
    yield from _labelled(gaps, [(labels, rail.gaps) for labels, rail in rails])


def _memory(memory: MemoryUsage) -> Iterator[Metric]:
    known = {
        "memory_total_bytes": memory.total_bytes,
        "memory_available_bytes": memory.available_bytes,
        "memory_budget_bytes": memory.budget_bytes,
        "memory_used_peak_bytes": memory.used_peak_bytes,
        "swap_used_bytes": memory.swap_used_bytes,
        "agent_memory_bytes": memory.agent_bytes,
        "engine_memory_bytes": memory.engine.now_bytes if memory.engine else None,
        "engine_memory_peak_bytes": memory.engine.peak_bytes if memory.engine else None,
        "nvmap_used_bytes": memory.nvmap_used_bytes,
        "largest_free_blocks": memory.free_blocks.count if memory.free_blocks else None,
    }
    yield from (_gauge(name, _plain(name), value) for name, value in known.items() if value is not None)
    if memory.pressure is not None:
        stalled = CounterMetricFamily(
            "edgewright_memory_pressure_seconds", "Time tasks waited for memory.", labels=("kind",)
        )
        seconds = [(("some",), memory.pressure.some_seconds), (("full",), memory.pressure.full_seconds)]
        yield from _labelled(stalled, seconds)


def _board(snapshot: Snapshot) -> Iterator[Metric]:
    temperature = GaugeMetricFamily("edgewright_temperature_celsius", "Thermal zone.", labels=("zone",))
    yield from _labelled(temperature, [((each.zone,), each.celsius) for each in snapshot.temperatures])
    clock = GaugeMetricFamily("edgewright_clock_hertz", "Clock.", labels=("unit",))
    yield from _labelled(clock, [((each.unit,), each.hertz) for each in snapshot.clocks])
    throttled = CounterMetricFamily(
        "edgewright_throttle_events", "Slowed down, since boot.", labels=("cause",)
    )
    yield from _labelled(throttled, [((each.cause,), each.events) for each in snapshot.throttling])
    if snapshot.gpu_load_ratio is not None:
        yield _gauge("gpu_load_ratio", "GPU load.", snapshot.gpu_load_ratio)
    mode = GaugeMetricFamily("edgewright_power_mode_info", "Power mode.", labels=("name",))
    yield from _labelled(mode, [((snapshot.power_mode,), 1)] if snapshot.power_mode else [])
    sensor = GaugeMetricFamily("edgewright_sensor_available", "1 if it answers.", labels=("sensor",))
    yield from _labelled(sensor, [((each.name,), float(each.available)) for each in snapshot.sensors])


def _release(deployment: Deployment) -> Iterator[Metric]:
    phase = GaugeMetricFamily("edgewright_update_phase", "What the board is doing.", labels=("phase",))
    yield from _labelled(phase, [((deployment.phase,), 1)])
    info = GaugeMetricFamily(
        "edgewright_release_info", "What is served.", labels=("digest", "model", "version", "counter")
    )
    if deployment.release is not None:
        labels = (deployment.release, deployment.model, deployment.version, str(deployment.counter))
        yield from _labelled(info, [(labels, 1)])


def _changes(changes: Changes) -> Iterator[Metric]:
    transitions = CounterMetricFamily("edgewright_update_transitions", "Since start.", labels=("from", "to"))
    yield from _labelled(transitions, list(changes.transitions.items()))
    rollbacks = CounterMetricFamily("edgewright_rollbacks", "Since start.", labels=("reason",))
    yield from _labelled(rollbacks, [((reason,), count) for reason, count in changes.rollbacks.items()])


def _stored(stored: StoreUsage) -> Iterator[Metric]:
    uploads = CounterMetricFamily("edgewright_upload_bytes", "Came in since start.", labels=("kind",))
    yield from _labelled(uploads, [((way,), size) for way, size in stored.bytes_by_way.items()])
    sizes = GaugeMetricFamily("edgewright_store_bytes", "Of the store.", labels=("state",))
    yield from _labelled(sizes, [((state,), size) for state, size in stored.bytes_by_state.items()])
    yield CounterMetricFamily(
        "edgewright_store_scrub_errors", "Blobs found corrupt since start.", value=stored.corrupt_blobs
    )


def _plain(name: str) -> str:
    return name.replace("_", " ").capitalize() + "."
