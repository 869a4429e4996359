"""How fast a model can decode on a board: every token reads the weights and the KV cache once.

    TPOT = (linear + head + norm + KV cache) bytes / (peak bandwidth · efficiency)

The range runs from an empty cache at the best efficiency found to a full one at the worst. It bounds decoding by one
request; prefill and batching are something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgewright_builder.fit.memory import Memory

# Share of the theoretical bandwidth that published runs reach (tokens/s × bytes per token / peak).
# gpu: W4A16 with vLLM, 3B to 8B on AGX Orin 51 to 65 %, on Thor 48 to 77 %, 2B on Orin Nano 75 %
#      (github.com/NVIDIA-AI-IOT/jetson-ai-lab, src/data/benchmarks.json @ 63e1e71).
# cpu: 1B to 1.5B in 4 bits on a Raspberry Pi 5, 5 to 12 tokens/s of 17.1 GB/s (arXiv 2511.07425): 23 to 56 %; where
#      few cores share a wide memory the cores are the limit, so the lower end is taken further down.
EFFICIENCY: Mapping[str, tuple[float, float]] = {"cpu": (0.10, 0.60), "gpu": (0.45, 0.80)}


@dataclass(frozen=True)
class Speed:
    """Predicted time per output token, at one power mode."""

    power_mode: str
    bandwidth_bytes_per_second: int
    bytes_per_token_min: int  # with an empty KV cache
    bytes_per_token_max: int  # with a full one
    tpot_seconds_min: float
    tpot_seconds_max: float


def predict_speed(
    memory: Memory,
    concurrency: int,
    power_mode: str,
    bandwidth_bytes_per_second: int,
    processor: Literal["cpu", "gpu"],
) -> Speed:
    """The range for one request that decodes alone."""
    lookup_bytes = 0 if memory.tied else _stored(memory, "embedding")  # one row a token, not the table
    least = memory.weights_bytes - lookup_bytes
    most = least + memory.kv_cache_bytes // concurrency
    worst, best = EFFICIENCY[processor]
    return Speed(
        power_mode=power_mode,
        bandwidth_bytes_per_second=bandwidth_bytes_per_second,
        bytes_per_token_min=least,
        bytes_per_token_max=most,
        tpot_seconds_min=least / (bandwidth_bytes_per_second * best),
        tpot_seconds_max=most / (bandwidth_bytes_per_second * worst),
    )


def _stored(memory: Memory, name: str) -> int:
    return sum(tensor.stored_bytes for tensor in memory.tensors if tensor.name == name)
