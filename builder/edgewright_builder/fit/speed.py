"""How fast a model can decode on a board: every token reads the weights and the KV cache once.

    TPOT = (linear + head + norm + KV cache) bytes / (peak bandwidth · efficiency)

The range runs from an empty cache at the best efficiency found to a full one at the worst. It bounds decoding by one
request; prefill and batching are something else.

Where the board has been measured, the release of the nearest size says more, t seconds for b bytes:

    TPOT between t · bytes / b                         all of its time went into bytes
    and          t + (bytes - b) / peak bandwidth      all that can have gone into something else did

and energy follows time, at the power it was measured at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgewright.sizes import format_bytes
from edgewright_builder.fit.memory import PeakMemory
from edgewright_profiles import DeviceProfile

# Share of the theoretical bandwidth that published runs reach (tokens/s × bytes per token / peak).
# gpu: W4A16 with vLLM, 3B to 8B on AGX Orin 51 to 65 %, on Thor 48 to 77 %, 2B on Orin Nano 75 %
#      (github.com/NVIDIA-AI-IOT/jetson-ai-lab, src/data/benchmarks.json @ 63e1e71).
# cpu: 1B to 1.5B in 4 bits on a Raspberry Pi 5, 5 to 12 tokens/s of 17.1 GB/s (arXiv 2511.07425): 23 to 56 %; where
#      few cores share a wide memory the cores are the limit, so the lower end is taken further down.
EFFICIENCY: Mapping[str, tuple[float, float]] = {"cpu": (0.10, 0.60), "gpu": (0.45, 0.80)}
# How far runs of one release on one board lie from their median (decode tokens/s in benchmarks/README.md).
MEASURED_SPREAD = 0.15


@dataclass(frozen=True)
class MeasuredDecode:
    """How one release decoded on a board, one request at a time."""

    bytes_per_token: int  # weights, and the KV cache as long as it was then
    tpot_seconds: float
    joules_per_token: float | None  # of the whole board; None: not measured
    power_mode: str | None  # None: the board has none


@dataclass(frozen=True)
class Speed:
    """Predicted time and energy per output token, in one power mode."""

    power_mode: str
    bytes_per_token_min: int  # with an empty KV cache
    bytes_per_token_max: int  # with a full one
    tpot_seconds_min: float
    tpot_seconds_max: float
    joules_per_token_min: float | None  # None: energy is never estimated, only measured
    joules_per_token_max: float | None
    measurements: int  # on this board; 0: it rests on what others have published
    rests_on: str


def predict_speed(
    memory: PeakMemory,
    concurrency: int,
    profile: DeviceProfile,
    processor: Literal["cpu", "gpu"],
    measured: Sequence[MeasuredDecode] = (),
) -> Speed:
    """Returns the range for one request that decodes alone: from what was measured on that board, the latest last, if
    anything.

    Else in the profile's default power mode, from what published runs reach of its bandwidth.
    """
    least = bytes_per_token(memory, kv_cache_bytes=0)
    most = bytes_per_token(memory, memory.kv_cache_bytes // concurrency)
    if measured:
        return _from_measured(least, most, profile, measured)
    return _from_published(least, most, profile, processor)


def bytes_per_token(memory: PeakMemory, kv_cache_bytes: int) -> int:
    """Returns what one token reads: of an untied embedding one row, not the table."""
    lookup_bytes = 0 if memory.tied else _stored(memory, "embedding")
    return memory.weights_bytes - lookup_bytes + kv_cache_bytes


def _from_published(least: int, most: int, profile: DeviceProfile, processor: Literal["cpu", "gpu"]) -> Speed:
    worst, best = EFFICIENCY[processor]
    bandwidth, mode = profile.bandwidth_bytes_per_second(), profile.default_power_mode
    return Speed(
        power_mode=mode,
        bytes_per_token_min=least,
        bytes_per_token_max=most,
        tpot_seconds_min=least / (bandwidth * best),
        tpot_seconds_max=most / (bandwidth * worst),
        joules_per_token_min=None,
        joules_per_token_max=None,
        measurements=0,
        rests_on=f"{worst:.0%} to {best:.0%} of {bandwidth / 1e9:.1f} GB/s at {mode}, as published runs reach",
    )


def _from_measured(
    least: int, most: int, profile: DeviceProfile, measured: Sequence[MeasuredDecode]
) -> Speed:
    """Predicts from measurements in the latest one's power mode alone."""
    mode = measured[-1].power_mode
    points = [point for point in measured if point.power_mode == mode]
    nearest = min(points, key=lambda point: abs(math.log(point.bytes_per_token / most)))
    bandwidth = profile.bandwidth_bytes_per_second(mode if mode in profile.power_mode_names else None)
    fastest = min(_times(nearest, least, bandwidth)) * (1 - MEASURED_SPREAD)
    slowest = max(_times(nearest, most, bandwidth)) * (1 + MEASURED_SPREAD)
    watts = None if nearest.joules_per_token is None else nearest.joules_per_token / nearest.tpot_seconds
    named = mode or profile.default_power_mode
    read = f"{format_bytes(nearest.bytes_per_token)} a token"
    return Speed(
        power_mode=named,
        bytes_per_token_min=least,
        bytes_per_token_max=most,
        tpot_seconds_min=fastest,
        tpot_seconds_max=slowest,
        joules_per_token_min=None if watts is None else watts * fastest,
        joules_per_token_max=None if watts is None else watts * slowest,
        measurements=len(points),
        rests_on=f"{1 / nearest.tpot_seconds:.1f} tokens/s measured on this board with {read} at {named}",
    )


def _times(point: MeasuredDecode, read_bytes: int, bandwidth: int) -> tuple[float, float]:
    """Seconds for so many bytes, under both assumptions; nothing is slower than what was measured."""
    peak = max(bandwidth, point.bytes_per_token / point.tpot_seconds)
    in_proportion = point.tpot_seconds * read_bytes / point.bytes_per_token
    return in_proportion, point.tpot_seconds + (read_bytes - point.bytes_per_token) / peak


def _stored(memory: PeakMemory, name: str) -> int:
    return sum(tensor.stored_bytes for tensor in memory.tensors if tensor.name == name)
