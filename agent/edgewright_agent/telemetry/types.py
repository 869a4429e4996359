"""What telemetry reports, as plain values. One dataclass for each message in `telemetry.proto`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from edgewright_agent.engines import EngineMemory


@dataclass(frozen=True)
class SensorStatus:
    """Whether all that a collector has found answers now; `detail` says why not, where not."""

    name: str
    available: bool
    detail: str = ""


@dataclass(frozen=True)
class Distribution:
    """The distribution of the last 1,000 values at most. Percentiles interpolate linearly between order statistics."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0


@dataclass(frozen=True)
class ServingSummary:
    """The requests since the active release was started."""

    requests: int = 0  # accepted, ended or not
    requests_failed: int = 0
    requests_rejected: int = 0
    requests_in_flight: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    time_to_first_token_seconds: Distribution = Distribution()
    time_per_output_token_seconds: Distribution = Distribution()
    inter_token_latency_seconds: Distribution = Distribution()


@dataclass(frozen=True)
class BoardMemory:
    """`/proc/meminfo`, now."""

    total_bytes: int
    available_bytes: int
    swap_used_bytes: int
    nvmap_used_bytes: int | None = None  # the GPU's share, where the kernel tells (L4T up to Orin)


@dataclass(frozen=True)
class MemoryPressure:
    """`/proc/pressure/memory`: ratios over the last 10 s, seconds since boot."""

    some_ratio: float
    full_ratio: float
    some_seconds: float
    full_seconds: float


@dataclass(frozen=True)
class FreeBlocks:
    """The free blocks of the largest size the kernel keeps."""

    count: int
    block_bytes: int


@dataclass(frozen=True)
class MemoryUsage:
    """The board's memory, the budget, and who takes how much."""

    total_bytes: int
    available_bytes: int
    swap_used_bytes: int
    budget_bytes: int | None  # a release's at its peak; None: telemetry without an agent
    agent_bytes: int
    used_peak_bytes: int  # most of total - available seen
    engine: EngineMemory | None = None
    nvmap_used_bytes: int | None = None
    free_blocks: FreeBlocks | None = None
    pressure: MemoryPressure | None = None


@dataclass(frozen=True)
class EnergyRail:
    """A joule counter since telemetry started. `watts` is the mean over the last second."""

    name: str
    source: str  # ina3221, ina238, ina2xx, rapl, nvml
    whole_module: bool
    joules: float
    watts: float | None
    samples: int
    gaps: int  # stretches over 1 s without a sample, and resets of a counter; not in joules


@dataclass(frozen=True)
class EnergyMark:
    """A rail's counter and when it was read, so that two marks give exact joules and seconds."""

    seconds: float
    rail: EnergyRail


@dataclass(frozen=True)
class EnergyWindow:
    """The energy of one request: arrival to first token, first to last token.

    Requests that overlap share the rail: each window then holds the energy of all of them.
    """

    rail: str
    prefill_joules: float
    decode_joules: float


@dataclass(frozen=True)
class RequestSummary:
    """What one request took. TPOT = (last token - first token) / (tokens - 1)."""

    time_to_first_token_seconds: float | None  # None: it ended without a token
    time_per_output_token_seconds: float | None  # None: fewer than two tokens
    energy: EnergyWindow | None  # None: no energy sensor, or it had a gap


Operation = Literal["chat", "text_completion"]  # OpenTelemetry's names
Rejection = Literal["busy", "invalid"]  # why a request was turned away: too many came, or its client is wrong
REJECTIONS: tuple[str, ...] = get_args(Rejection)


@dataclass(frozen=True)
class ServedBy:
    """The release that serves a request, and its engine."""

    release: str = ""  # in hex
    model: str = ""
    engine: str = ""


@dataclass(frozen=True)
class EndedRequest:
    """A request that is over, as exporters count it."""

    served_by: ServedBy
    operation: Operation
    finish_reason: str  # stop, length; completed (not told which), cancelled, error; or a Rejection
    duration_seconds: float
    prompt_tokens: int
    generated_tokens: int
    time_to_first_token_seconds: float | None
    time_per_output_token_seconds: float | None


@dataclass(frozen=True)
class Deployment:
    """What the board serves and what it is doing."""

    phase: str
    release: str | None  # in hex; None: nothing is served
    model: str = ""
    version: str = ""
    counter: int = 0


@dataclass(frozen=True)
class StoreUsage:
    """The store, for exporters: bytes by state and, since the agent's start, bytes by the way they came."""

    bytes_by_state: Mapping[str, int]
    bytes_by_way: Mapping[str, int]
    corrupt_blobs: int


@dataclass(frozen=True)
class Temperature:
    """A thermal zone."""

    zone: str
    celsius: float


@dataclass(frozen=True)
class Clock:
    """A clock: cpu0, gpu, emc."""

    unit: str
    hertz: int


@dataclass(frozen=True)
class Throttling:
    """How often the board slowed itself down for this cause, since boot."""

    cause: str
    events: int


@dataclass(frozen=True)
class Snapshot:
    """Everything measured, as of one moment."""

    unix_seconds: float
    monotonic_seconds: float
    profile_id: str
    serving: ServingSummary
    memory: MemoryUsage | None  # None: /proc/meminfo can't be read
    energy: tuple[EnergyRail, ...] = ()
    temperatures: tuple[Temperature, ...] = ()
    power_mode: str | None = None
    sensors: tuple[SensorStatus, ...] = ()
    gpu_load_ratio: float | None = None
    clocks: tuple[Clock, ...] = ()
    throttling: tuple[Throttling, ...] = ()
