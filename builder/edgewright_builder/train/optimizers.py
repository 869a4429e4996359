"""Muon and Adam over LoRA factors, and the learning-rate schedule they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from edgewright_builder.recipe.hyperparameters import Optimizer as OptimizerName

# A gradient this small is rounding noise; orthogonalization would blow it up to a full-size step. LoRA starts
# there: B = 0 makes the gradient of A zero.
GRADIENT_NORM_MIN = 1e-12


def make_optimizer(
    name: OptimizerName, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float
) -> Optimizer:
    """Returns AdamW, or torch's Muon scaled to AdamW's step size, so that both share one learning-rate range.

    Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; `match_rms_adamw` is 0.2·√max(rows, columns)
    (Liu et al., arXiv 2502.16982). Every parameter must be a matrix, which LoRA's factors are.
    """
    if name == "adam":
        return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    return Muon(parameters, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")


def drop_vanishing_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Takes parameters whose gradient is (nearly) zero out of the next step."""
    for parameter in parameters:
        if parameter.grad is not None and float(parameter.grad.norm()) < GRADIENT_NORM_MIN:
            parameter.grad = None


def learning_rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Returns the factor, in (0, 1], of step `step` (from 0) of `steps`: linear warmup, then a cosine to a tenth."""
    warmup_steps = max(1, math.ceil(warmup_fraction * steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))
