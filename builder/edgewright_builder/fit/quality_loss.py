"""What a configuration is expected to lose of the whole 16-bit model: a shipped table of measured divergences.

Divergences are KL(16 bit ‖ configuration) at temperature 1 in nats per token, each change measured alone and added up.
`calibrations/quality_loss.json` says on what it was measured; `benchmarks/plan_losses.py` measures it again. Larger
models lose less, and distillation and recovery bring part of it back, so the figures put candidates in order and do
not foretell a build.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Configuration

PATH = Path(__file__).with_name("calibrations") / "quality_loss.json"


@dataclass(frozen=True)
class Losses:
    """The table."""

    source: str  # model, text and script
    layers_dropped: tuple[tuple[float, float], ...]  # (share of the layers, nats), rising
    group_size: dict[int, float]  # nats of 4-bit linear layers at that group size
    embedding_bits: dict[int, float]  # nats of embedding and head at so many bits

    def of_layers(self, layers: int, layers_full: int) -> float:
        """Returns the nats that missing layers cost: between the measured shares in a straight line."""
        share = 1 - layers / layers_full
        points = self.layers_dropped
        for (left, below), (right, above) in pairwise(points):
            if share <= right:
                return below + (above - below) * (share - left) / (right - left)
        share_most, most = points[-1]
        return most * share / share_most


@cache
def load_losses() -> Losses:
    """Returns the shipped table."""
    values = json.loads(PATH.read_text(encoding="utf-8"))
    return Losses(
        source=values["source"],
        layers_dropped=tuple((share, nats) for share, nats in values["layers_dropped"]),
        group_size={int(size): nats for size, nats in values["group_size"].items()},
        embedding_bits={int(bits): nats for bits, nats in values["embedding_bits"].items()},
    )


def expected_divergence(architecture: Architecture, configuration: Configuration) -> float:
    """Returns KL(16 bit ‖ configuration) in nats per token, before distillation and recovery."""
    losses = load_losses()
    return (
        losses.of_layers(configuration.layers, architecture.layers)
        + losses.group_size[configuration.group_size]
        + losses.embedding_bits[configuration.embedding_bits]
    )
