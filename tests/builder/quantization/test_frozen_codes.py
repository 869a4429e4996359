"""Layers with frozen codes: exact products and gradients, and checkpoints in which the scales alone change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewright.errors import InputError
from edgewright_builder.quantization.delta_aware import Frozen
from edgewright_builder.quantization.frozen_codes import (
    FrozenCodesLinear,
    frozen_layers,
    load_frozen_codes,
    write_checkpoint,
)
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from tests.support.tiny_gptq_checkpoint import write_quantized


def random_layer(outputs: int, groups: int, group_size: int, seed: int) -> FrozenCodesLinear:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (outputs, groups * group_size), generator=random).float()
    scales = (0.01 + torch.rand(outputs, groups, generator=random)).half().float()
    return FrozenCodesLinear(Frozen(codes, scales), torch.randn(outputs, generator=random))


def dense(layer: FrozenCodesLinear, scales: Tensor) -> Tensor:
    """The weights by plain arithmetic, which autograd can follow."""
    return layer.codes.float() * scales.repeat_interleave(layer.codes.shape[1] // scales.shape[1], dim=1)


@given(
    outputs=st.integers(1, 12), groups=st.integers(1, 4), group_size=st.sampled_from([8, 32]),
    rows=st.integers(1, 9), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_product_and_gradients_are_those_of_dense_autograd(
    outputs: int, groups: int, group_size: int, rows: int, seed: int
) -> None:
    layer = random_layer(outputs, groups, group_size, seed)
    inputs = torch.randn(2, rows, groups * group_size, requires_grad=True)
    plain_inputs = inputs.detach().clone().requires_grad_()
    scales = layer.scales.detach().clone().requires_grad_()
    ours = layer(inputs)
    theirs = torch.nn.functional.linear(plain_inputs, dense(layer, scales), layer.bias)
    weights = torch.randn_like(ours)
    torch.autograd.backward([(ours * weights).sum(), (theirs * weights).sum()])
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(inputs.grad, plain_inputs.grad)
    assert scales.grad is not None
    # d/d log_change = d/ds · s: the change is relative
    torch.testing.assert_close(layer.log_change.grad, scales.grad * scales.detach())


@pytest.mark.parametrize("change", [0.0, 0.3, -0.3])
def test_the_weights_follow_every_change_of_the_scales(change: float) -> None:
    layer, inputs = random_layer(5, 3, 8, seed=2), torch.randn(4, 24)
    layer(inputs)
    layer.log_change.data.fill_(change)
    expected = torch.nn.functional.linear(inputs, dense(layer, layer.scales), layer.bias)
    torch.testing.assert_close(layer(inputs), expected)


def test_a_layer_that_was_judged_can_be_trained() -> None:
    layer = random_layer(5, 3, 8, seed=2)
    inputs = torch.randn(4, 24, requires_grad=True)
    with torch.inference_mode():
        layer(inputs)
    layer(inputs).sum().backward()
    assert layer.log_change.grad is not None


def test_the_scales_in_use_are_what_a_checkpoint_can_hold() -> None:
    layer = random_layer(5, 3, 8, seed=1)
    layer.log_change.data.normal_(std=0.1)
    assert torch.equal(layer.scales, layer.scales.half().float())


def test_a_model_of_frozen_codes_computes_what_the_checkpoint_computes(tmp_path: Path) -> None:
    checkpoint, _ = write_quantized(tmp_path)
    tokens = torch.arange(5, 40)[None]
    with torch.no_grad():
        ours, theirs = load_frozen_codes(checkpoint)(tokens), load_dequantized(checkpoint)(tokens)
    torch.testing.assert_close(ours.logits, theirs.logits)


@pytest.mark.parametrize("change", [0.0, 0.05])
def test_written_scales_read_back_equal_and_no_code_moves(tmp_path: Path, change: float) -> None:
    checkpoint, _ = write_quantized(tmp_path)
    model = load_frozen_codes(checkpoint)
    for layer in frozen_layers(model).values():
        layer.log_change.data.fill_(change)
    scales = {f"{name}.scales": layer.scales.detach().T for name, layer in frozen_layers(model).items()}
    write_checkpoint(checkpoint, tmp_path / "new", scales)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "new"))
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        expected = scales[name].half() if name in scales else before[name]
        assert torch.equal(tensor, expected), name
    assert (tmp_path / "new" / "config.json").read_bytes() == (checkpoint / "config.json").read_bytes()


@pytest.mark.parametrize("change", [{"desc_act": True}, {"sym": False}, {"bits": 8}])
def test_a_checkpoint_with_act_order_or_zero_points_is_refused_before_it_is_trained(
    tmp_path: Path, change: dict[str, object]
) -> None:
    checkpoint, _ = write_quantized(tmp_path)
    path = checkpoint / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] |= change
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match="no symmetric 4-bit GPTQ checkpoint without act-order"):
        load_frozen_codes(checkpoint)


@pytest.mark.parametrize(
    ("part", "message"), [("g_idx", "quantized with act-order"), ("qzeros", "not symmetric GPTQ v1")]
)
def test_tensors_that_contradict_their_configuration_are_refused(
    tmp_path: Path, part: str, message: str
) -> None:
    checkpoint, _ = write_quantized(tmp_path)
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    layer = next(name for name in tensors if name.endswith("q_proj.qweight")).removesuffix(".qweight")
    inputs = 8 * tensors[f"{layer}.qweight"].shape[0]
    other = {
        "g_idx": torch.arange(inputs, dtype=torch.int32) % 2,
        "qzeros": torch.zeros_like(tensors[f"{layer}.qzeros"]),
    }
    save_file(tensors | {f"{layer}.{part}": other[part]}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=message):
        load_frozen_codes(checkpoint)
