"""Reads a checkpoint tensor by tensor: packed GPTQ layers as codes and scales, the rest as floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import InputError
from edgewright_builder.export.gguf.blocks import SYMMETRIC_ZEROS, gptq_codes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class QuantizedLinear:
    """A layer in 4 bits: w = scale of its group · (code − 8)."""

    codes: NDArray[np.uint8]  # (out, in)
    scales: NDArray[np.float16]  # (out, groups)

    def reordered(self, rows: NDArray[np.intp]) -> QuantizedLinear:
        """Returns the layer with its outputs in another order."""
        return QuantizedLinear(self.codes[rows], self.scales[rows])


Weight = QuantizedLinear | NDArray[np.float32]


def read_weights(checkpoint: Path) -> Iterator[tuple[str, Weight]]:
    """Yields the module's or parameter's name and its weight: a quantized layer by its module's name, a plain tensor by
    its own.

    Raises InputError where a layer is not symmetric GPTQ v1 without act-order.
    """
    from safetensors import safe_open

    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            layers = {name.removesuffix(".qweight") for name in names if name.endswith(".qweight")}
            parts = {
                f"{layer}.{part}" for layer in layers for part in ("qweight", "qzeros", "scales", "g_idx")
            }
            for name in sorted(layers | (names - parts)):
                yield name, _linear(file, name, names) if name in layers else _floats(file.get_tensor(name))


def _linear(file: Any, layer: str, names: set[str]) -> QuantizedLinear:
    for part in ("scales", "qzeros"):
        if f"{layer}.{part}" not in names:
            raise InputError(f"The checkpoint holds {layer}.qweight and no {layer}.{part}. Build it again.")
    zeros = file.get_tensor(f"{layer}.qzeros").numpy().view(np.uint32)
    if not (zeros == SYMMETRIC_ZEROS).all():
        raise InputError(f"{layer} has zero points other than 8; Q4_0 holds symmetric GPTQ v1 only.")
    codes = gptq_codes(file.get_tensor(f"{layer}.qweight").numpy())
    scales = _half(layer, file.get_tensor(f"{layer}.scales"))
    if f"{layer}.g_idx" in names:
        group_size = codes.shape[1] // scales.shape[1]
        groups = file.get_tensor(f"{layer}.g_idx").numpy()
        if not (groups == np.arange(len(groups)) // group_size).all():
            raise InputError(
                f"{layer} was quantized with act-order (`desc_act`); Q4_0 holds consecutive groups only."
            )
    return QuantizedLinear(codes, scales)


def _half(layer: str, scales: Tensor) -> NDArray[np.float16]:
    """Returns scales (groups, out) as (out, groups) in float16. Raises InputError where that would round them."""
    import torch

    half = scales.to(torch.float16)
    if not torch.equal(half.to(scales.dtype), scales):
        raise InputError(f"{layer} has scales that float16 can't hold; Q4_0 stores float16.")
    return np.ascontiguousarray(half.numpy().T)


def _floats(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().numpy()
    return array
