"""LoRA as one operation: the product and all gradients are PEFT's."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import nn

from edgewright_builder.recipe.hyperparameters import Hyperparameters
from edgewright_builder.train import lora
from edgewright_builder.train.lora import add_lora, merge_lora
from tests.support.tiny_models import tiny_model

PRECISIONS: tuple[Literal["bfloat16"], Literal["float32"]] = ("bfloat16", "float32")
CHOICE = Hyperparameters("adam", 1e-3, 0.0, 8, 1.7, 1.0, 1.0)


def adapted_model(*, bias: bool = False, precision: Literal["float32", "bfloat16"] | None = None) -> Any:
    """A tiny model under a LoRA that is not zero."""
    plain = tiny_model(1)
    model = type(plain)(plain.config).eval()
    model.load_state_dict(plain.state_dict())
    if bias:
        for layer in model.model.layers:
            layer.self_attn.q_proj.bias = nn.Parameter(
                torch.linspace(-1, 1, layer.self_attn.q_proj.out_features)
            )
    adapted = add_lora(model, CHOICE, seed=0, precision=precision)
    torch.manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return adapted


def logits_and_gradients(model: Any) -> list[torch.Tensor]:
    logits = model(input_ids=torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])).logits
    logits.square().mean().backward()
    return [logits.detach(), *(each.grad for each in model.parameters() if each.requires_grad)]


@pytest.mark.parametrize("bias", [False, True])
def test_one_operation_gives_the_product_and_the_gradients_of_peft(
    monkeypatch: pytest.MonkeyPatch, bias: bool
) -> None:
    ours = logits_and_gradients(adapted_model(bias=bias))
    monkeypatch.setattr(lora, "use_one_operation", lambda *_: None)
    peft = logits_and_gradients(adapted_model(bias=bias))
    assert len(ours) == len(peft) > 20
    for mine, theirs in zip(ours, peft, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_factors_give_nearly_the_same_product_and_gradients(bias: bool) -> None:
    exact = logits_and_gradients(adapted_model(bias=bias))
    rounded = logits_and_gradients(adapted_model(bias=bias, precision="bfloat16"))
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (
            0 < (ours - theirs).norm() < 0.05 * theirs.norm()
        )  # 0.4 % a factor, through two layers and back


def test_merging_after_bfloat16_products_adds_to_the_weights_as_they_were() -> None:
    merged, exact = (merge_lora(adapted_model(precision=name)) for name in PRECISIONS)
    expected = exact.state_dict()
    for name, tensor in merged.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_merged_model_computes_what_the_adapted_one_did() -> None:
    model, ids = adapted_model(), torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(merge_lora(model)(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_equals_a_numerical_one() -> None:
    from edgewright_builder.train.lora_product import _LoraProduct

    torch.manual_seed(0)
    shapes = ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2))
    inputs, weight, bias, a, b = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    for tensor in (inputs, a, b):
        tensor.requires_grad_(True)

    def product(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
        return _LoraProduct.apply(x, weight, bias, a, b, 1.7)  # type: ignore[no-untyped-call]

    assert torch.autograd.gradcheck(product, (inputs, a, b))
