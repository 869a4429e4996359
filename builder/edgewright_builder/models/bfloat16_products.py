"""Products with frozen weights, whose factors may be bfloat16: processors with instructions for it are then faster.

Both factors keep eight of float32's twenty-four bits of precision; products are summed in float32. What is trained
stays in float32.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# As torch.cpu.get_capabilities names them: x86 with AVX-512 or AMX, and ARM.
BFLOAT16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16")


def frozen_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns rows·Wᵀ + b, (…, out), in the rows' type; rows: (…, in), weight: (out, in) of either type."""
    if weight.dtype == rows.dtype:
        return functional.linear(rows, weight, bias)
    product = functional.linear(rows.to(weight.dtype), weight).to(rows.dtype)
    return product if bias is None else product.add_(bias)


def frozen_matmul(rows: Tensor, weight: Tensor) -> Tensor:
    """Returns rows·W, (rows, in), in the rows' type; rows: (rows, out), weight: (out, in) of either type."""
    return (rows.to(weight.dtype) @ weight).to(rows.dtype)


def gradient_of_weights(rows: Tensor, inputs: Tensor) -> Tensor:
    """Returns rowsᵀ·inputs, (out, in), in the rows' type; rows: (rows, out), inputs: (rows, in) of either type."""
    return (rows.to(inputs.dtype).T @ inputs).to(rows.dtype)


def torch_precision(name: Literal["float32", "bfloat16"] | None) -> torch.dtype | None:
    """Returns what a recipe's `finetune.precision` names."""
    return None if name is None else {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16; without them they are slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BFLOAT16_CAPABILITIES)
