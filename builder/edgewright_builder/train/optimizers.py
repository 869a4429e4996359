"""Muon and Adam over LoRA factors, and the learning-rate schedule they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from edgewright_builder.recipe.hyperparameters import Optimizer as OptimizerName

# A gradient this small is rounding noise; orthogonalization would blow it up to a full-size step. LoRA starts
# there: B = 0 makes the gradient of A zero.
GRADIENT_NORM_MIN = 1e-12


MUON_UPDATE_RMS = 0.2  # of Muon's update at learning rate 1, by `match_rms_adamw`


class RmsMatchedAdamW(AdamW):
    """AdamW whose update of each matrix has the root mean square that Muon's has: Muon's size, Adam's direction."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes AdamW's step, then scales what it changed, the weight decay left aside."""
        decayed = [
            (
                group["lr"],
                [(weight, weight * (1 - group["lr"] * group["weight_decay"])) for weight in group["params"]],
            )
            for group in self.param_groups
        ]
        super().step()
        for learning_rate, weights in decayed:
            for weight, start in weights:
                if weight.grad is None:
                    continue
                update = weight - start
                size = float(update.square().mean().sqrt())
                if size > 0:
                    weight.copy_(start + update * (learning_rate * MUON_UPDATE_RMS / size))


def optimizer_phases(name: OptimizerName) -> tuple[str, ...]:
    """Returns the optimizers that a training goes through, each for an equal share of the steps."""
    return tuple(name.split("-then-"))


def make_optimizer(
    name: str, parameters: Sequence[nn.Parameter], learning_rate: float, weight_decay: float
) -> Optimizer:
    """Returns one phase's optimizer: AdamW, the same with updates of Muon's size, or Muon.

    Torch's Muon is scaled to AdamW's step size, so that all share one learning-rate range.

    Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; `match_rms_adamw` is 0.2·√max(rows, columns)
    (Liu et al., arXiv 2502.16982). Every parameter must be a matrix, which LoRA's factors are.
    """
    if name == "adam":
        return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    if name == "adam-rms":
        return RmsMatchedAdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
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
