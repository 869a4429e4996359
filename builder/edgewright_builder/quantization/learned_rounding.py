"""A linear layer whose rounding is trained: each weight's code may move to a neighbour of GPTQ's.

A weight w of a group with scale s stands at w/s, between two codes. A trained offset in [−0.5, 0.5] is added before
rounding: the code is c = clamp(round(w/s + offset), −8, 7), the weight c·s (SignRound, Cheng et al., arXiv 2309.05516).
Training starts from GPTQ's codes: where w/s lies nearer to another code, it starts at the edge of GPTQ's. The gradient
passes the rounding as if it were not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.errors import InputError
from edgewright_builder.models.bfloat16_products import frozen_linear, frozen_matmul, gradient_of_weights
from edgewright_builder.quantization.delta_aware import CODE_MAX, ZERO
from edgewright_builder.quantization.frozen_codes import (
    FrozenCodesLinear,
    dequantize,
    frozen_layers,
    scales_in_use,
)
from edgewright_builder.quantization.gptq_checkpoint import read_tensors

OFFSET_MAX = 0.5  # of a step of the grid: a code moves to a neighbour, no further
REMAINDER_MAX = 0.499  # keeps GPTQ's code until training moves it


class LearnedRoundingLinear(nn.Module):
    """y = x·Wᵀ + b with W = codes·scale of its group; `offsets` and `log_change` are trained.

    `log_change` is what it is in `FrozenCodesLinear`.
    """

    def __init__(self, frozen: FrozenCodesLinear, unquantized: Tensor) -> None:
        super().__init__()
        self.start_codes: Tensor
        self.earlier_scales: Tensor
        self.remainders: Tensor
        self.register_buffer("start_codes", frozen.codes)  # (out, in), int8, −8 to 7
        self.register_buffer("earlier_scales", frozen.earlier_scales)  # (out, groups), float32
        self.register_buffer("remainders", _remainders(frozen, unquantized))  # (out, in), float16
        self.log_change = nn.Parameter(frozen.log_change.detach().clone())
        self.offsets = nn.Parameter(torch.zeros_like(frozen.codes, dtype=torch.float32))
        self.bias = frozen.bias
        self.precision = torch.float32  # of the factors of all products
        self._made: tuple[Tensor, Tensor] | None = None  # codes and weights
        self._made_at = (-1, -1)  # versions of offsets and log_change they were made of

    @property
    def scales(self) -> Tensor:
        """The scales in use, (out, groups): float32 that holds float16 values, straight-through in the gradient."""
        return scales_in_use(self.earlier_scales, self.log_change)

    @property
    def codes(self) -> Tensor:
        """The codes in use, (out, in), int8, −8 to 7."""
        positions = self.remainders.float().add_(self.start_codes).add_(self.offsets.detach())
        return positions.round_().clamp_(-ZERO, CODE_MAX - ZERO).to(torch.int8)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (…, in). Returns (…, out)."""
        scales = self.scales
        codes, weight = self._codes_and_weight(scales.detach())
        product: Tensor = _LearnedRoundingProduct.apply(  # type: ignore[no-untyped-call]
            inputs, scales, self.offsets, codes, weight, self.bias
        )
        return product

    def _codes_and_weight(self, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both, made anew only after a parameter changed: once a step, for all its packs."""
        version = (self.offsets._version, self.log_change._version)
        if self._made is None or self._made[1].dtype != self.precision or version != self._made_at:
            self._made = None  # the earlier ones are freed first
            with torch.inference_mode(False), torch.no_grad():
                codes = self.codes
                self._made, self._made_at = (codes, dequantize(codes, scales, self.precision)), version
        return self._made


class _LearnedRoundingProduct(torch.autograd.Function):
    """The product. A step of a code changes its weight by the scale, so an offset has the scaled gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,  # (…, in)
        scales: Tensor,  # (out, groups)
        offsets: Tensor,  # (out, in)
        codes: Tensor,  # (out, in)
        weight: Tensor,  # (out, in)
        bias: Tensor | None,  # (out,), frozen
    ) -> Tensor:
        ctx.save_for_backward(inputs.to(weight.dtype), scales, codes, weight)
        return frozen_linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, scales, codes, weight = ctx.saved_tensors
        rows = gradients[0].reshape(-1, codes.shape[0])
        of_inputs = frozen_matmul(rows, weight).reshape(inputs.shape) if ctx.needs_input_grad[0] else None
        of_weights = gradient_of_weights(rows, inputs.reshape(-1, codes.shape[1]))
        groups = of_weights.reshape(*scales.shape, -1)
        of_scales = (groups * codes.reshape_as(groups)).sum(dim=-1)
        of_offsets = groups.mul_(scales.unsqueeze(-1)).reshape(codes.shape)
        return of_inputs, of_scales, of_offsets, None, None, None


def _remainders(frozen: FrozenCodesLinear, unquantized: Tensor) -> Tensor:
    """Returns where each weight stands in relation to its code, in steps of the grid, within ±0.499; float16."""
    groups = unquantized.float().reshape(*frozen.earlier_scales.shape, -1)
    scales = frozen.earlier_scales.unsqueeze(-1)
    positions = torch.where(scales != 0, groups / scales, 0.0).reshape(frozen.codes.shape)
    return (positions - frozen.codes).clamp_(-REMAINDER_MAX, REMAINDER_MAX).half()


def learn_rounding(model: nn.Module, unquantized: Path) -> None:
    """Lets the rounding of every `FrozenCodesLinear` of `model` be trained. `unquantized` has its weights in floats.

    Raises InputError where the folder holds other layers than the model.
    """
    tensors = read_tensors(unquantized)
    for name, frozen in frozen_layers(model).items():
        weight = tensors.get(f"{name}.weight")
        if weight is None or weight.shape != frozen.codes.shape:
            shape = "no such tensor" if weight is None else f"one of shape {tuple(weight.shape)}"
            raise InputError(
                f"Learning the rounding needs {name}.weight of shape {tuple(frozen.codes.shape)} in {unquantized}, "
                f"which has {shape}. Build the fine-tuned model again, or set `recover.train: scales`."
            )
        parent, _, last = name.rpartition(".")
        layer = LearnedRoundingLinear(frozen, weight.to(frozen.codes.device))
        setattr(model.get_submodule(parent), last, layer)


def rounded_layers(model: nn.Module) -> dict[str, LearnedRoundingLinear]:
    """Returns the layers whose rounding is trained, by name, in the model's order."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, LearnedRoundingLinear)
    }


@torch.no_grad()
def hold_offsets(model: nn.Module) -> None:
    """Brings every offset back to within half a step of the grid."""
    for layer in rounded_layers(model).values():
        layer.offsets.clamp_(-OFFSET_MAX, OFFSET_MAX)


def changed_codes_fraction(model: nn.Module) -> float:
    """Returns the share of the codes that are no longer GPTQ's."""
    layers = rounded_layers(model).values()
    changed = sum(int((layer.codes != layer.start_codes).sum()) for layer in layers)
    return changed / max(1, sum(layer.start_codes.numel() for layer in layers))
