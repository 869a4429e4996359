"""Feeds those who read telemetry beside gRPC: the record on disk, Prometheus, and an OTLP collector."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from edgewright.address import Address
from edgewright.errors import EdgewrightError, InputError
from edgewright.v1 import telemetry_pb2
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.store import Store
from edgewright_agent.telemetry.exporters.phase_changes import Changes
from edgewright_agent.telemetry.exporters.recorder import HISTORY_BYTES, RECORD_SECONDS, Recorder
from edgewright_agent.telemetry.proto import snapshot_to_proto
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry.types import Deployment, StoreUsage


@dataclass(frozen=True)
class ObservationSettings:
    """What is recorded, and where metrics go."""

    history_bytes: int = HISTORY_BYTES  # 0: nothing is recorded
    record_seconds: float = RECORD_SECONDS
    metrics: Address | None = None  # port 0 takes a free one; None: no metrics
    otlp: str | None = None  # URL of a collector; None: nothing is sent


@dataclass(frozen=True)
class Observation:
    """The record, the snapshot of now, and where the metrics are."""

    recorder: Recorder
    snapshot: Callable[[], telemetry_pb2.Snapshot]
    metrics: Address | None


@contextlib.asynccontextmanager
async def observe(
    settings: ObservationSettings, store: Store, telemetry: Telemetry, deployer: Deployer
) -> AsyncIterator[Observation]:
    """Records and exports until the context ends. Raises InputError: metrics port in use."""

    def snapshot() -> telemetry_pb2.Snapshot:
        return snapshot_to_proto(telemetry.snapshot(), _deployment(deployer).release)

    recorder = Recorder(
        store.layout.telemetry,
        snapshot,
        bytes_max=settings.history_bytes,
        interval_seconds=settings.record_seconds,
    )
    async with contextlib.AsyncExitStack() as stack:
        if settings.history_bytes > 0:
            stack.callback(recorder.write)
            recording = asyncio.create_task(recorder.run())
            stack.callback(recording.cancel)
        _otlp(settings.otlp, stack, telemetry)
        metrics = await _metrics(settings.metrics, stack, store, telemetry, deployer)
        yield Observation(recorder, snapshot, metrics)


async def _metrics(
    address: Address | None,
    stack: contextlib.AsyncExitStack,
    store: Store,
    telemetry: Telemetry,
    deployer: Deployer,
) -> Address | None:
    if address is None:
        return None
    # Only who asks for metrics pays for their library's memory.
    from edgewright_agent.telemetry.exporters.prometheus import Sources, serve_metrics

    changes = Changes()
    sources = Sources(
        telemetry.snapshot,
        lambda: _deployment(deployer),
        telemetry.subscribe,
        changes,
        lambda: _stored(store),
    )
    bound, stop = serve_metrics(address, sources)
    stack.callback(stop)
    following = asyncio.create_task(_follow(deployer, changes))
    stack.callback(following.cancel)
    return bound


async def _follow(deployer: Deployer, changes: Changes) -> None:
    async for status in deployer.watch(follow=True):
        changes.now(status.state.phase.value, host_asked=status.state.host_asked)


def _stored(store: Store) -> StoreUsage:
    return StoreUsage(store.bytes_by_state(), store.traffic.bytes_by_way, store.traffic.corrupt)


def _otlp(url: str | None, stack: contextlib.AsyncExitStack, telemetry: Telemetry) -> None:
    if url is None:
        return
    _require_http(url)
    try:
        from edgewright_agent.telemetry.exporters.otlp import export
    except ImportError as error:
        raise InputError(f"--otlp needs `pip install edgewright[otlp]`: {error}.") from None
    stack.callback(export(url, telemetry.snapshot, telemetry.subscribe))


def _require_http(url: str) -> None:
    """Raises InputError for what is no address of a collector: its exporter would fail each time it sends."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise InputError(f"--otlp is {url!r}; give a collector's address, for instance http://host:4318.")


def _deployment(deployer: Deployer) -> Deployment:
    """Returns what answers requests. On probation that may be the candidate, which is not active yet."""
    phase = deployer.state.phase.value
    try:
        release = deployer.serving().release
    except EdgewrightError:
        return Deployment(phase, None)
    manifest = release.manifest
    return Deployment(phase, release.digest, manifest.name, manifest.version, manifest.release_counter)
