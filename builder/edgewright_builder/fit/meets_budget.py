"""Whether a predicted peak meets a budget. Plans, checks, builds, adapters and the report all ask here.

A board decides for itself what it admits (the agent's `deployment/release_admission.py`): it compares the predicted
peak without its error bar, and then measures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgewright.manifest import MemoryPrediction
from edgewright_builder.fit.architecture import Architecture

# Beside an adapter's own bytes, float16, the engine casts each factor to float32 while it uses it.
MEMORY_PER_ADAPTER_BYTE = 3


@dataclass(frozen=True)
class PeakBound:
    """A predicted peak, the half-width of its interval, and the budget they are held against."""

    peak_bytes: int
    error_bytes: int
    budget_bytes: int

    @property
    def upper_bytes(self) -> int:
        """The upper end of the prediction."""
        return self.peak_bytes + self.error_bytes

    @property
    def spare_bytes(self) -> int:
        """Budget less the upper end; negative where it does not fit."""
        return self.budget_bytes - self.upper_bytes

    @property
    def fits(self) -> bool:
        """Whether even the upper end of the prediction meets the budget."""
        return self.upper_bytes <= self.budget_bytes

    @property
    def may_fit(self) -> bool:
        """Whether the prediction itself meets the budget; its upper end may not."""
        return self.peak_bytes <= self.budget_bytes


def adapter_bytes(architecture: Architecture, modules: Iterable[str], rank: int) -> int:
    """Returns the bytes of a LoRA's factors in float16: rank · (inputs + outputs) values for each module of a layer.

    Its file has about 100 bytes more for each of the two factors of a module.
    """
    values = sum(rank * sum(architecture.projection_shape(module)) for module in modules)
    return 2 * architecture.layers * values


def adapter_bound(base: MemoryPrediction, adapter_bytes: int, budget_bytes: int) -> PeakBound:
    """Returns the bound of a base that serves with an adapter of `adapter_bytes`."""
    peak_bytes = base.predicted_peak_bytes + MEMORY_PER_ADAPTER_BYTE * adapter_bytes
    return PeakBound(peak_bytes, base.error_bytes, budget_bytes)
