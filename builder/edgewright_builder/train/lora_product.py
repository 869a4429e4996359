"""The product of a linear layer under LoRA as one operation: y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ with W and b frozen.

PEFT computes it layer by layer, with a tensor of the output's size for each term. Here the low-rank term is added in
place, forwards and backwards, and of the intermediates x·Aᵀ alone is kept. The products with W may have bfloat16
factors; sums, the low-rank term and all that is trained stay in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from edgewright_builder.models.bfloat16_products import frozen_linear, frozen_matmul

ADAPTER = "default"  # PEFT's name for the only adapter there is


def use_one_operation(adapted: nn.Module, precision: torch.dtype | None = None) -> None:
    """Lets every plain LoRA layer of `adapted` compute its product as one operation, with W in `precision` or as it is.

    Layers whose factors have another type than their weights (bfloat16 on a GPU) stay as PEFT has them.
    """
    for module in adapted.modules():
        if isinstance(module, Linear) and _is_plain(module):
            weight = None if precision is None else module.base_layer.weight.detach().to(precision)
            module.forward = partial(_product, module, weight)


def _is_plain(module: Any) -> bool:
    base = module.base_layer
    return type(base) is nn.Linear and module.lora_A[ADAPTER].weight.dtype == base.weight.dtype


def _product(module: Any, weight: Tensor | None, inputs: Tensor) -> Tensor:
    """inputs: (…, in); weight: W in another precision. Returns (…, out)."""
    base = module.base_layer
    product: Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
        inputs, base.weight if weight is None else weight, base.bias, module.lora_A[ADAPTER].weight,
        module.lora_B[ADAPTER].weight, module.scaling[ADAPTER],
    )  # fmt: skip
    return product


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,  # (…, in)
        weight: Tensor,  # (out, in), frozen; float32 or bfloat16
        bias: Tensor | None,  # (out,), frozen
        a: Tensor,  # (rank, in)
        b: Tensor,  # (out, rank)
        scaling: float,
    ) -> Tensor:
        rows = inputs.flatten(0, -2)
        inner = rows @ a.T
        ctx.save_for_backward(inputs, weight, a, b, inner)
        ctx.scaling = scaling
        product = frozen_linear(rows, weight, bias).addmm_(inner, b.T, alpha=scaling)
        return product.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, a, b, inner = ctx.saved_tensors
        rows = gradients[0].flatten(0, -2)
        of_inner = (rows @ b).mul_(ctx.scaling)
        of_b = (rows.T @ inner).mul_(ctx.scaling)
        of_a = of_inner.T @ inputs.flatten(0, -2)
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = frozen_matmul(rows, weight).addmm_(of_inner, a).view_as(inputs)
        return of_inputs, None, None, of_a, of_b, None
