"""Products with frozen weights: those of plain arithmetic, and exact where bfloat16 can hold the factors."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch

from edgewright_builder.models.bfloat16_products import (
    frozen_linear,
    frozen_matmul,
    gradient_of_weights,
    multiplies_bfloat16,
)

WEIGHT = torch.randint(-8, 8, (5, 12), generator=torch.Generator().manual_seed(0)).float()
INPUTS = torch.randint(-8, 8, (3, 4, 12), generator=torch.Generator().manual_seed(1)).float()
SLOPES = torch.randint(-8, 8, (12, 5), generator=torch.Generator().manual_seed(2)).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [None, torch.arange(5.0) / 7])
def test_products_are_float32_and_exact_for_factors_that_bfloat16_holds(
    dtype: torch.dtype, bias: torch.Tensor | None
) -> None:
    weight = WEIGHT.to(dtype)
    expected = torch.nn.functional.linear(INPUTS, WEIGHT, bias)
    small = torch.finfo(dtype).eps * expected.abs().max()  # the product itself passes through that type
    product = frozen_linear(INPUTS, weight, bias)
    assert product.dtype == torch.float32
    assert (product - expected).abs().max() <= small
    for ours, theirs in (
        (frozen_matmul(SLOPES, weight), SLOPES @ WEIGHT),
        (gradient_of_weights(SLOPES, INPUTS.flatten(0, 1).to(dtype)), SLOPES.T @ INPUTS.flatten(0, 1)),
    ):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() <= torch.finfo(dtype).eps * theirs.abs().max()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"bf16": True}, True), ({"avx512_bf16": False, "avx2": True}, False)],
)
def test_bfloat16_is_known_by_the_processor_s_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(capabilities))
    assert multiplies_bfloat16() == expected
