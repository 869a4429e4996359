"""What a board measures of itself: the result of `Board.telemetry`. A sensor that is not there gives None, not zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from edgewright.sizes import format_bytes
from edgewright.v1.telemetry_pb2 import Snapshot
from edgewright_builder.device_client.messages import from_message
from edgewright_builder.show.sheet import Facts, Sheet, shown

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class LatencyDistribution:
    """Seconds over the last 1,000 values at most; all zero where `count` is 0."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    def __str__(self) -> str:
        named = {"p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max}
        return ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in named.items())


@dataclass(frozen=True)
class ServingFigures:
    """Requests and latencies since the active release was started."""

    requests: int
    requests_failed: int
    requests_rejected: int
    requests_in_flight: int
    prompt_tokens: int
    generated_tokens: int
    time_to_first_token_seconds: LatencyDistribution
    time_per_output_token_seconds: LatencyDistribution  # per request
    inter_token_latency_seconds: LatencyDistribution  # per token

    @property
    def latencies(self) -> Mapping[str, LatencyDistribution]:
        """The distributions that have values, by their usual names."""
        named = {
            "TTFT": self.time_to_first_token_seconds,
            "TPOT": self.time_per_output_token_seconds,
            "ITL": self.inter_token_latency_seconds,
        }
        return {name: values for name, values in named.items() if values.count}


@dataclass(frozen=True)
class MemoryPressureFigures:
    """The kernel's PSI of memory: ratios over the last 10 s, counters since boot."""

    some_ratio: float
    full_ratio: float
    some_seconds: float
    full_seconds: float


@dataclass(frozen=True)
class MemoryFigures:
    """Memory of the board, the engine's process tree and the agent."""

    total_bytes: int
    available_bytes: int
    swap_used_bytes: int
    budget_bytes: int
    engine_bytes: int | None
    engine_peak_bytes: int | None  # since the engine's start
    agent_bytes: int
    used_peak_bytes: int  # of the board
    engine_measure: str | None  # "rss", "pss, peak rss" or "pss, peaks added"
    nvmap_used_bytes: int | None  # the GPU's share of a Tegra's memory
    largest_free_blocks: int | None
    largest_free_block_bytes: int | None
    pressure: MemoryPressureFigures | None


@dataclass(frozen=True)
class EnergyReading:
    """One power rail: a counter since the agent's start, and the mean power of the last second."""

    name: str
    source: str  # ina3221, ina238, ina2xx, rapl, nvml
    whole_module: bool
    joules: float
    watts: float | None
    samples: int
    gaps: int  # stretches over 1 s without a sample, whose joules are not counted

    def __str__(self) -> str:
        watts = "" if self.watts is None else f", {self.watts:.2f} W"
        scope = "whole module" if self.whole_module else "part"
        return (
            f"{self.joules:.1f} J{watts} ({self.source}, {scope}, {self.samples} samples, {self.gaps} gaps)"
        )


@shown
@dataclass(frozen=True)
class EnergyReadings:
    """The power rails that answer. It has a length and items, as a tuple has, and is empty without an energy sensor."""

    rails: tuple[EnergyReading, ...]

    def __iter__(self) -> Iterator[EnergyReading]:
        return iter(self.rails)

    def __len__(self) -> int:
        return len(self.rails)

    def __getitem__(self, index: int) -> EnergyReading:
        return self.rails[index]

    @property
    def whole_module(self) -> EnergyReading | None:
        """The rail that is the whole board's; None if no sensor covers it."""
        return next((rail for rail in self.rails if rail.whole_module), None)

    def _document(self) -> tuple[EnergyReading, ...]:
        return self.rails

    def rows(self) -> Rows:
        """Returns a name and a value for each rail."""
        return [(f"energy {rail.name}", str(rail)) for rail in self.rails] or [("energy", "no energy sensor")]

    def _sheet(self) -> Sheet:
        return Sheet((Facts("energy since the agent's start", self.rows()),), self._pictures)

    def _pictures(self) -> Mapping[str, str]:
        from edgewright_builder.report.charts import Bar, bar_chart

        rails = [rail for rail in self.rails if rail.watts is not None]
        bars = [Bar(rail.name, rail.watts or 0.0, f"{rail.watts:.2f} W", hover=str(rail)) for rail in rails]
        if not bars:
            return {}
        return {"Power": bar_chart(bars, "watts", lambda value: f"{value:g}", description="Power by rail")}


@dataclass(frozen=True)
class TemperatureReading:
    """A thermal zone."""

    zone: str
    celsius: float


@dataclass(frozen=True)
class ClockReading:
    """A clock: of a core, the GPU or the memory."""

    unit: str
    hertz: int


@dataclass(frozen=True)
class ThrottlingCount:
    """How often the board slowed itself down for this cause since boot."""

    cause: str
    events: int


@dataclass(frozen=True)
class SensorState:
    """A collector of the agent, and why it finds nothing where it does not."""

    name: str
    available: bool
    detail: str


@shown
@dataclass(frozen=True)
class TelemetrySnapshot:
    """Everything a board measures, as of one moment."""

    unix_seconds: float
    monotonic_seconds: float
    profile_id: str
    active_release: str  # the one that serves, on probation too; empty: none does
    serving: ServingFigures
    memory: MemoryFigures
    energy: EnergyReadings
    temperatures: tuple[TemperatureReading, ...]
    power_mode: str | None
    sensors: tuple[SensorState, ...]
    gpu_load_ratio: float | None
    clocks: tuple[ClockReading, ...]
    throttling: tuple[ThrottlingCount, ...]
    host: str = ""  # where it was asked

    @property
    def time(self) -> datetime:
        """When it was measured, by the board's clock."""
        return datetime.fromtimestamp(self.unix_seconds, tz=timezone.utc)

    @property
    def line(self) -> str:
        """The most important figures in one line."""
        serving, memory = self.serving, self.memory
        parts = [
            f"{serving.requests} requests, {serving.requests_in_flight} in flight",
            f"{serving.generated_tokens} tokens",
            f"{format_bytes(memory.available_bytes)} free",
        ]
        if memory.engine_bytes is not None:
            parts.insert(2, f"engine {format_bytes(memory.engine_bytes)}")
        if serving.time_per_output_token_seconds.count:
            parts.insert(2, f"TPOT {serving.time_per_output_token_seconds.p50 * 1e3:.1f} ms")
        rails = [rail for rail in self.energy if rail.watts is not None]
        parts += [f"{rail.name} {rail.watts:.2f} W" for rail in rails] or ["no energy sensor"]
        return " · ".join(parts)

    def _sheet(self) -> Sheet:
        rows = [
            ("release", self.active_release[:12] or "none is being served"),
            *_serving_rows(self.serving),
            *_memory_rows(self.memory),
            *self.energy.rows(),
            *((f"temperature {each.zone}", f"{each.celsius:.1f} °C") for each in self.temperatures),
            *((f"clock {each.unit}", f"{each.hertz / 1e6:.0f} MHz") for each in self.clocks),
            *([] if self.gpu_load_ratio is None else [("GPU load", f"{self.gpu_load_ratio:.0%}")]),
            *(
                (f"slowed down, {each.cause.replace('_', ' ')}", f"{each.events} times since boot")
                for each in self.throttling
            ),
            *([] if self.power_mode is None else [("power mode", self.power_mode)]),
            *((f"no {each.name}", each.detail) for each in self.sensors if not each.available),
        ]
        return Sheet((Facts(self.host or self.profile_id, rows),), self._pictures)

    def _pictures(self) -> Mapping[str, str]:
        from edgewright_builder.report.charts import Bar, Reference, bar_chart

        memory = self.memory
        figures = {"engine": memory.engine_bytes, "its peak": memory.engine_peak_bytes}
        bars = [
            Bar(name, float(size), format_bytes(size)) for name, size in figures.items() if size is not None
        ]
        if not bars:
            return self.energy._pictures()
        limit = Reference(float(memory.budget_bytes), f"budget {format_bytes(memory.budget_bytes)}")
        chart = bar_chart(
            bars, "memory", lambda value: format_bytes(int(value)), references=[limit],
            description="Memory of the engine against its budget",
        )  # fmt: skip
        return {"Memory": chart, **self.energy._pictures()}


@dataclass(frozen=True)
class RecordedTelemetry:
    """An entry of the board's own record. Numbers that are missing are entries it dropped."""

    sequence: int
    snapshot: TelemetrySnapshot

    def __str__(self) -> str:
        return f"{self.sequence} {self.snapshot.time:%Y-%m-%d %H:%M:%S}Z · {self.snapshot.line}"


def snapshot_of(message: Snapshot, host: str = "") -> TelemetrySnapshot:
    """Returns the message as a result."""
    rails = tuple(from_message(EnergyReading, rail) for rail in message.energy)
    return from_message(TelemetrySnapshot, message, energy=EnergyReadings(rails), host=host)


def _serving_rows(serving: ServingFigures) -> Rows:
    counts = f"{serving.requests} accepted, {serving.requests_in_flight} in flight"
    return [
        ("requests", f"{counts}, {serving.requests_failed} failed, {serving.requests_rejected} rejected"),
        ("tokens", f"{serving.prompt_tokens} read, {serving.generated_tokens} generated"),
        *((name, str(values)) for name, values in serving.latencies.items()),
    ]


def _memory_rows(memory: MemoryFigures) -> Rows:
    rows = [
        ("memory", f"{format_bytes(memory.available_bytes)} free of {format_bytes(memory.total_bytes)}"),
        ("budget", format_bytes(memory.budget_bytes)),
    ]
    if memory.engine_bytes is not None:
        peak = "" if memory.engine_peak_bytes is None else f", peak {format_bytes(memory.engine_peak_bytes)}"
        measure = "" if memory.engine_measure is None else f" ({memory.engine_measure})"
        rows.append(("engine memory", format_bytes(memory.engine_bytes) + peak + measure))
    return [*rows, ("agent memory", format_bytes(memory.agent_bytes))]
