"""How families turn the product of output head and hidden states into logits: some scale it, some cap it softly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# The configuration's key of each family whose logits are multiplied, and whether it is a divisor.
SCALES = {"logit_scale": False, "lm_head_multiplier": False, "logits_scaling": True}


def logit_shape(config: Any) -> Callable[[Tensor], Tensor]:
    """Returns how the family turns the product of head and hidden states into logits: scaled, then soft-capped."""
    scale, softcap = logit_scale(config), getattr(config, "final_logit_softcapping", None)

    def shaped(product: Tensor) -> Tensor:
        scaled = product if scale == 1 else product * scale
        return (scaled / softcap).tanh() * softcap if softcap else scaled

    return shaped


def logit_scale(config: Any) -> float:
    """Returns what the family multiplies its logits by: Cohere's `logit_scale`, Granite's 1 / `logits_scaling`."""
    scale = 1.0
    for key, divides in SCALES.items():
        value = getattr(config, key, None)
        if isinstance(value, (int, float)):
            scale = scale / value if divides else scale * value
    return scale
