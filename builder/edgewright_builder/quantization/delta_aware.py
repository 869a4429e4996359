"""GPTQ that remembers: scales stay those of an earlier model, and so do the codes that are still near enough.

A board that has the earlier model is then sent only the codes that had to move. What keeping a code costs is handed
to the columns not yet quantized, as GPTQ does with every rounding error (Frantar et al., arXiv 2210.17323,
algorithm 1), so the dead band buys bytes at a price that is measured on the task and not on the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgewright.errors import InputError

BITS = 4
ZERO = 2 ** (BITS - 1)  # the code of weight 0 in symmetric quantization
CODE_MAX = 2**BITS - 1
BLOCK_COLUMNS = 128
CODES_PER_WORD = 32 // BITS
SYMMETRIC_ZEROS = 0x77777777  # GPTQ v1 stores each zero point less one


@dataclass(frozen=True)
class Frozen:
    """One linear layer of the earlier model: the weight of code c in group g is (c − 8)·scale[g]."""

    codes: Tensor  # (out, in), whole numbers 0 to 15
    scales: Tensor  # (out, in / group size), float32

    @property
    def group_size(self) -> int:
        """How many inputs share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    @property
    def column_scales(self) -> Tensor:
        """The scale of each weight, (out, in)."""
        return self.scales.repeat_interleave(self.group_size, dim=1)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Returns the weights that `codes` (out, in) stand for."""
        weights: Tensor = (codes - ZERO) * self.column_scales
        return weights

    def to(self, device: torch.device) -> Frozen:
        """Returns the layer on another device."""
        return Frozen(self.codes.to(device), self.scales.to(device))


def unpack(qweight: Tensor, scales: Tensor, qzeros: Tensor) -> Frozen:
    """Returns the layer that a symmetric GPTQ v1 checkpoint stores.

    qweight: (in / 8, out) int32, eight codes of consecutive inputs a word; scales: (groups, out); qzeros: (groups,
    out / 8) int32. Raises InputError where the zero points are not symmetric.
    """
    if not bool((qzeros == SYMMETRIC_ZEROS).all()):
        raise InputError(
            "The earlier checkpoint is not symmetric GPTQ v1: its zero points are not all 8. Leave "
            "`quantize.delta_from` out, or name a checkpoint that Edgewright made."
        )
    shifts = torch.arange(0, 32, BITS, dtype=torch.int32, device=qweight.device)
    codes = (qweight.unsqueeze(1) >> shifts.reshape(1, CODES_PER_WORD, 1)) & CODE_MAX
    return Frozen(codes.reshape(-1, qweight.shape[1]).T.float().contiguous(), scales.T.float().contiguous())


def pack(codes: Tensor) -> Tensor:
    """Returns a checkpoint's `qweight`, (in / 8, out) int32, of codes (out, in) from 0 to 15: what `unpack` reads."""
    words = torch.zeros(
        codes.shape[1] // CODES_PER_WORD, codes.shape[0], dtype=torch.int32, device=codes.device
    )
    for place in range(CODES_PER_WORD):
        words |= codes.T[place::CODES_PER_WORD].to(torch.int32) << (BITS * place)
    return words


def nearest_codes(weight: Tensor, scale: Tensor, old: Tensor, dead_band: float) -> Tensor:
    """Returns the code of each weight: its old code if that is near enough, else the nearest.

    Near enough is a weight within 0.5 + `dead_band` steps of what the old code stands for.
    All three tensors have one shape. With a dead band of 0 this is plain rounding.
    """
    ideal = weight / scale + ZERO
    nearest = ideal.round().clamp(0, CODE_MAX)
    return torch.where((ideal - old).abs() <= 0.5 + dead_band, old, nearest)


def requantize(
    weight: Tensor, inverse_factor: Tensor, scales: Tensor, old: Tensor, dead_band: float
) -> tuple[Tensor, float]:
    """Returns codes for `weight` on frozen `scales`, near the `old` codes, and GPTQ's loss. All tensors are (out, in).

    inverse_factor: the upper Cholesky factor of the inverse Hessian, (in, in). Column by column, the error of a code
    is spread over the columns that follow.
    """
    weight, codes, loss = weight.clone(), torch.empty_like(weight), 0.0
    columns = weight.shape[1]
    for first in range(0, columns, BLOCK_COLUMNS):
        last = min(first + BLOCK_COLUMNS, columns)
        block, factor = weight[:, first:last], inverse_factor[first:last, first:last]
        errors = torch.empty_like(block)
        for column in range(last - first):
            scale = scales[:, first + column]
            code = nearest_codes(block[:, column], scale, old[:, first + column], dead_band)
            errors[:, column] = (block[:, column] - (code - ZERO) * scale) / factor[column, column]
            block[:, column:] -= errors[:, column : column + 1] * factor[column, column:]
            codes[:, first + column] = code
        weight[:, last:] -= errors @ inverse_factor[first:last, last:]
        loss += float(errors.square().sum()) / 2
    return codes, loss
