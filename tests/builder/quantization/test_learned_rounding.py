"""Layers whose rounding is trained: they start as GPTQ left them, and a code moves to a neighbour at most."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewright.errors import InputError
from edgewright_builder.quantization.delta_aware import SYMMETRIC_ZEROS, ZERO, Frozen, pack, unpack
from edgewright_builder.quantization.frozen_codes import (
    FrozenCodesLinear,
    load_frozen_codes,
    write_checkpoint,
)
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from edgewright_builder.quantization.learned_rounding import (
    LearnedRoundingLinear,
    changed_codes_fraction,
    hold_offsets,
    learn_rounding,
    rounded_layers,
)
from edgewright_builder.recipe.model_recipe import RecoverSettings
from edgewright_builder.train.recovery import recovered_tensors
from tests.support.tiny_gptq_checkpoint import write_quantized
from tests.support.tiny_models import tiny_model

GROUP_SIZE = 8


def random_weights(outputs: int, groups: int, seed: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales, and weights that stand `spread` steps of the grid away from them."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (outputs, groups * GROUP_SIZE), generator=random).float()
    scales = (0.01 + torch.rand(outputs, groups, generator=random)).half().float()
    scales *= (
        torch.randint(0, 2, scales.shape, generator=random) * 2 - 1
    )  # AutoRound writes negative ones too
    noise = spread * torch.randn(codes.shape, generator=random)
    return codes, scales, Frozen(codes, scales).dequantize(codes + noise)


def random_layer(outputs: int, groups: int, seed: int, spread: float = 1.0) -> LearnedRoundingLinear:
    """A layer that starts from such weights."""
    codes, scales, weights = random_weights(outputs, groups, seed, spread)
    bias = torch.randn(outputs, generator=torch.Generator().manual_seed(seed))
    return LearnedRoundingLinear(FrozenCodesLinear(Frozen(codes, scales), bias), weights)


def dense(layer: LearnedRoundingLinear, scales: Tensor, offsets: Tensor) -> Tensor:
    """The weights by plain arithmetic, the gradient of the rounding being that of its argument."""
    exact = layer.start_codes.float() + layer.remainders.float() + offsets
    codes = exact + (exact.round().clamp(-8, 7) - exact).detach()
    return codes * scales.repeat_interleave(GROUP_SIZE, dim=1)


@given(
    outputs=st.integers(1, 8), groups=st.integers(1, 4), rows=st.integers(1, 9), seed=st.integers(0, 1000),
    offset=st.floats(0, 0.5),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_product_and_gradients_are_those_of_dense_autograd(
    outputs: int, groups: int, rows: int, seed: int, offset: float
) -> None:
    layer = random_layer(outputs, groups, seed)
    with torch.no_grad():
        layer.offsets.uniform_(-offset, offset)
    inputs = torch.randn(2, rows, groups * GROUP_SIZE, requires_grad=True)
    plain_inputs = inputs.detach().clone().requires_grad_()
    scales = layer.scales.detach().clone().requires_grad_()
    offsets = layer.offsets.detach().clone().requires_grad_()
    ours = layer(inputs)
    theirs = torch.nn.functional.linear(plain_inputs, dense(layer, scales, offsets), layer.bias)
    weights = torch.randn_like(ours)
    torch.autograd.backward([(ours * weights).sum(), (theirs * weights).sum()])
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(inputs.grad, plain_inputs.grad)
    torch.testing.assert_close(layer.offsets.grad, offsets.grad)
    assert scales.grad is not None
    torch.testing.assert_close(layer.log_change.grad, scales.grad * scales.detach())


@given(seed=st.integers(0, 1000), spread=st.floats(0, 20))
@settings(deadline=None, max_examples=50)
def test_a_layer_starts_with_gptq_s_codes_wherever_its_weights_stand(seed: int, spread: float) -> None:
    layer = random_layer(5, 3, seed, spread)
    assert torch.equal(layer.codes, layer.start_codes)


@given(seed=st.integers(0, 1000), spread=st.floats(0, 0.1))
@settings(deadline=None, max_examples=50)
def test_a_weight_starts_where_it_stands_between_the_codes_whatever_the_sign_of_its_scale(
    seed: int, spread: float
) -> None:
    codes, scales, weights = random_weights(5, 3, seed, spread)
    layer = LearnedRoundingLinear(FrozenCodesLinear(Frozen(codes, scales), None), weights)
    stands = weights / scales.repeat_interleave(GROUP_SIZE, dim=1)
    started = layer.start_codes.float() + layer.remainders.float()
    torch.testing.assert_close(started, stands, atol=2e-3, rtol=0)


@given(seed=st.integers(0, 1000), push=st.floats(-30, 30))
@settings(deadline=None, max_examples=50)
def test_a_code_moves_to_a_neighbour_at_most(seed: int, push: float) -> None:
    layer = random_layer(5, 3, seed)
    with torch.no_grad():
        layer.offsets.add_(push * torch.randn(layer.offsets.shape))
    hold_offsets(torch.nn.Sequential(layer))
    assert (layer.codes.int() - layer.start_codes).abs().max() <= 1
    assert layer.codes.min() >= -8
    assert layer.codes.max() <= 7


def test_the_weights_follow_every_change_of_the_offsets() -> None:
    layer, inputs = random_layer(5, 3, seed=2), torch.randn(4, 24)
    layer(inputs)
    with torch.no_grad():
        layer.offsets.fill_(0.5)
    expected = torch.nn.functional.linear(inputs, dense(layer, layer.scales, layer.offsets), layer.bias)
    torch.testing.assert_close(layer(inputs), expected)
    assert 0 < changed_codes_fraction(torch.nn.Sequential(layer)) < 1


@given(outputs=st.integers(1, 9), words=st.integers(1, 6), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_packed_codes_unpack_to_themselves(outputs: int, words: int, seed: int) -> None:
    codes = torch.randint(0, 16, (outputs, 8 * words), generator=torch.Generator().manual_seed(seed))
    zeros = torch.full((1, 1), SYMMETRIC_ZEROS, dtype=torch.int32)
    assert torch.equal(unpack(pack(codes), torch.ones(1, outputs), zeros).codes, codes.float())


def test_what_is_written_computes_what_was_trained(tmp_path: Path) -> None:
    checkpoint, _ = write_quantized(tmp_path)
    tiny_model(1).save_pretrained(tmp_path / "unquantized")
    model = load_frozen_codes(checkpoint)
    learn_rounding(model, tmp_path / "unquantized")
    with torch.no_grad():
        for layer in rounded_layers(model).values():
            layer.offsets.uniform_(-0.5, 0.5)
            layer.log_change.normal_(std=0.02)
    settings = RecoverSettings(train="rounding")
    write_checkpoint(checkpoint, tmp_path / "new", recovered_tensors(model, settings))
    tokens = torch.arange(5, 40)[None]
    with torch.no_grad():
        ours, theirs = model(tokens).logits, load_dequantized(tmp_path / "new")(tokens).logits
    torch.testing.assert_close(ours, theirs)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "new"))
    changed = {name.rsplit(".", 1)[-1] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"qweight", "scales"}


@pytest.mark.parametrize("fault", ["missing", "other shape"])
def test_weights_of_another_model_are_refused(tmp_path: Path, fault: str) -> None:
    checkpoint, _ = write_quantized(tmp_path)
    tiny_model(1).save_pretrained(tmp_path / "unquantized")
    file = tmp_path / "unquantized" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    weight = tensors.pop(name)
    save_file(
        tensors if fault == "missing" else tensors | {name: weight[:8].contiguous()}, file, {"format": "pt"}
    )
    with pytest.raises(InputError, match=r"needs model\.layers\.0\.mlp\.up_proj\.weight of shape"):
        learn_rounding(load_frozen_codes(checkpoint), tmp_path / "unquantized")


def test_a_group_of_zeros_stays_zero() -> None:
    frozen = FrozenCodesLinear(Frozen(torch.full((2, 8), float(ZERO)), torch.zeros(2, 1)), None)
    layer = LearnedRoundingLinear(frozen, torch.zeros(2, 8))
    assert torch.equal(layer.codes, frozen.codes)
    assert layer(torch.ones(1, 8)).abs().max() == 0
