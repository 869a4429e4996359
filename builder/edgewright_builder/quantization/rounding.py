"""Rounds to the nearest 4-bit code, in place of GPTQ where only a ranking is needed: the search judges what ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def fake_quantize(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """Returns `weight` rounded to a symmetric grid of 2^bits levels per group of `group_size` inputs, as floats.

    weight: (out, in), `in` a multiple of `group_size`. The scale of a group is 2·max|w| / (2^bits − 1), that is
    max|w| / 7.5 for 4 bits, with the codes −8 to 7: the grid that GPTQModel's symmetric `Quantizer` starts from.
    """
    rows, columns = weight.shape
    groups: Tensor = weight.reshape(rows, columns // group_size, group_size)
    codes_max = 2 ** (bits - 1) - 1
    scale: Tensor = groups.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) * 2 / (2**bits - 1)
    codes: Tensor = (groups / scale).round_().clamp_(-codes_max - 1, codes_max)
    return codes.mul_(scale).reshape(rows, columns)


@contextmanager
def temporarily_quantized(modules: dict[str, nn.Linear], bits: int, group_size: int) -> Iterator[None]:
    """Replaces the weights of `modules` by their rounded ones until the block ends."""
    kept = {name: module.weight.data for name, module in modules.items()}
    try:
        with torch.no_grad():
            for module in modules.values():
                module.weight.data = fake_quantize(module.weight.data, bits, group_size)
        yield
    finally:
        for name, module in modules.items():
            module.weight.data = kept[name]
