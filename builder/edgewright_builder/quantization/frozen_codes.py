"""A linear layer whose 4-bit codes are frozen and whose scales are trained.

The weight of code c in group g is (c − 8)·s[g], s in float16 as a GPTQ checkpoint stores it. Training moves the scales
alone (EfficientQAT's second phase, Chen et al., arXiv 2407.11062): the packed codes stay as they are, bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewright_builder.models.bfloat16_products import frozen_linear, frozen_matmul, gradient_of_weights
from edgewright_builder.quantization.delta_aware import ZERO, Frozen, unpack
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized, read_tensors


class FrozenCodesLinear(nn.Module):
    """y = x·Wᵀ + b with W = (codes − 8)·scale of its group; `log_change` is trained, one number a group.

    The scale in use is the earlier one times exp(log_change), rounded to float16: one learning rate then means the same
    relative step for small and for large scales.
    """

    def __init__(self, frozen: Frozen, bias: Tensor | None) -> None:
        super().__init__()
        self.codes: Tensor
        self.earlier_scales: Tensor
        self.register_buffer("codes", (frozen.codes - ZERO).to(torch.int8))  # (out, in), −8 to 7
        self.register_buffer("earlier_scales", frozen.scales)  # (out, groups), float32 of float16 values
        self.log_change = nn.Parameter(torch.zeros_like(frozen.scales))
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.precision = torch.float32  # of the factors of all products
        self._weight: Tensor | None = None
        self._weight_scales: Tensor | None = None  # that the weight was made with

    @property
    def scales(self) -> Tensor:
        """The scales in use, (out, groups): float32 that holds float16 values, straight-through in the gradient."""
        return scales_in_use(self.earlier_scales, self.log_change)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (…, in). Returns (…, out)."""
        scales = self.scales
        product: Tensor = _FrozenCodesProduct.apply(  # type: ignore[no-untyped-call]
            inputs, scales, self.codes, self._weight_of(scales.detach()), self.bias
        )
        return product

    def _weight_of(self, scales: Tensor) -> Tensor:
        """Returns the weights, which are made anew only where a scale has changed: once a step, for all its packs."""
        weight, made_with = self._weight, self._weight_scales
        if (
            weight is None
            or weight.dtype != self.precision
            or made_with is None
            or not torch.equal(scales, made_with)
        ):
            self._weight, self._weight_scales = None, scales  # the earlier ones are freed first
            with (
                torch.inference_mode(False),
                torch.no_grad(),
            ):  # training may go on with what judging has made
                self._weight = weight = dequantize(self.codes, scales, self.precision)
        return weight


class _FrozenCodesProduct(torch.autograd.Function):
    """The product. The gradient of the scales is summed layer by layer; none of the weights is kept."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, scales: Tensor, codes: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(inputs.to(weight.dtype), scales, codes, weight)
        return frozen_linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, scales, codes, weight = ctx.saved_tensors
        rows = gradients[0].reshape(-1, codes.shape[0])
        of_inputs = of_scales = None
        if ctx.needs_input_grad[0]:
            of_inputs = frozen_matmul(rows, weight).reshape(inputs.shape)
        if ctx.needs_input_grad[1]:
            of_weights = gradient_of_weights(rows, inputs.reshape(-1, codes.shape[1]))
            of_scales = of_weights.mul_(codes).reshape(*scales.shape, -1).sum(dim=-1, dtype=scales.dtype)
        return of_inputs, of_scales, None, None, None


def scales_in_use(earlier: Tensor, log_change: Tensor) -> Tensor:
    """Returns earlier·exp(log_change), rounded to float16 with a straight-through gradient; both (out, groups)."""
    exact = earlier * log_change.exp()
    return exact + (exact.half().float() - exact).detach()


def dequantize(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the weights (out, in) of centred codes (out, in) and scales (out, groups)."""
    groups = codes.reshape(*scales.shape, -1)
    return torch.mul(groups, scales.to(dtype).unsqueeze(-1)).reshape(codes.shape)


def load_frozen_codes(checkpoint: Path) -> nn.Module:
    """Returns a GPTQ checkpoint's model in float32, each quantized layer a `FrozenCodesLinear`, all of it frozen.

    Raises InputError where it is no symmetric 4-bit GPTQ v1 checkpoint without act-order.
    """
    model = load_dequantized(checkpoint, torch.float32)
    tensors = read_tensors(checkpoint)
    for name in sorted(key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")):
        freeze_codes(
            model, name, unpack(*(tensors[f"{name}.{part}"] for part in ("qweight", "scales", "qzeros")))
        )
    return model.requires_grad_(False)


def freeze_codes(model: nn.Module, name: str, frozen: Frozen) -> FrozenCodesLinear:
    """Puts a `FrozenCodesLinear` of these codes in the place of the linear layer `name`, and returns it."""
    parent, _, last = name.rpartition(".")
    plain: Any = model.get_submodule(name)
    layer = FrozenCodesLinear(frozen, None if plain.bias is None else plain.bias.data).to(plain.weight.device)
    setattr(model.get_submodule(parent), last, layer)
    return layer


def frozen_layers(model: nn.Module) -> dict[str, FrozenCodesLinear]:
    """Returns the quantized layers by name, in the model's order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FrozenCodesLinear)}


def write_checkpoint(source: Path, target: Path, changed: dict[str, Tensor]) -> None:
    """Writes the checkpoint `source` to `target` with the tensors `changed` in place of its own, in their dtypes."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.suffix != ".safetensors":
            (target / file.name).write_bytes(file.read_bytes())
            continue
        with safe_open(str(file), framework="pt") as tensors:
            kept = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
            metadata = tensors.metadata()
        new = {name: changed[name].to(kept[name].dtype).contiguous() for name in changed.keys() & kept.keys()}
        save_file(kept | new, target / file.name, metadata)
