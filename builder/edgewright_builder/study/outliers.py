"""How heavy the tails of activations are: the mechanism by which an optimizer could change what 4 bits cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgewright_builder.train.samples import Sample

TOKENS_MAX = 2048


@dataclass(frozen=True)
class Outliers:
    """Means over the layers, of what enters each block."""

    kurtosis: float  # E[x⁴] / E[x²]², 3 for a normal distribution (Nrusimha et al. 2024, arXiv 2404.03605)
    max_to_median: float  # per token max|x| / median|x| over the channels, averaged


def outliers(model: nn.Module, samples: Sequence[Sample]) -> Outliers:
    """Returns the outliers of the hidden states on the first 2,048 tokens of `samples`, each read alone."""
    import torch

    device = next(model.parameters()).device
    sums: list[_Sums] = []
    tokens = 0
    with torch.inference_mode():
        for sample in samples:
            if tokens >= TOKENS_MAX:
                break
            output: Any = model.get_decoder()(  # type: ignore[operator]
                input_ids=torch.tensor([sample.tokens], device=device),
                output_hidden_states=True,
                use_cache=False,
            )
            states = output.hidden_states[1:]  # the first are the embeddings
            sums = sums or [_Sums() for _ in states]
            for total, state in zip(sums, states, strict=True):
                total.add(state[0].double())
            tokens += len(sample.tokens)
    return Outliers(_mean([total.kurtosis for total in sums]), _mean([total.max_to_median for total in sums]))


@dataclass
class _Sums:
    second: float = 0.0
    fourth: float = 0.0
    ratio: float = 0.0
    values: int = 0
    tokens: int = 0

    def add(self, state: torch.Tensor) -> None:
        """Counts the (tokens, channels) in."""
        magnitude = state.abs()
        self.second += float((state**2).sum())
        self.fourth += float((state**4).sum())
        self.ratio += float((magnitude.amax(1) / magnitude.median(1).values).sum())
        self.values += state.numel()
        self.tokens += len(state)

    @property
    def kurtosis(self) -> float:
        return self.fourth / self.values / (self.second / self.values) ** 2

    @property
    def max_to_median(self) -> float:
        return self.ratio / self.tokens


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
