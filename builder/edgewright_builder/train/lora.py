"""LoRA with PEFT: put it on, merge it, and which layers it goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer, awq, gptq
from peft.utils import other, quantization_utils
from torch import Tensor, nn

from edgewright_builder.models.bfloat16_products import torch_precision
from edgewright_builder.recipe.hyperparameters import Hyperparameters
from edgewright_builder.recipe.model_recipe import PROJECTIONS
from edgewright_builder.train.lora_product import use_one_operation

LAYER_PATTERN = re.compile(r"\.layers\.(\d+)\.")


def add_lora(
    model: nn.Module,
    hyperparameters: Hyperparameters,
    seed: int,
    modules: Sequence[str] = PROJECTIONS,
    precision: Literal["float32", "bfloat16"] | None = None,
) -> nn.Module:
    """Returns `model` with trainable LoRA factors on every linear layer of these names, the rest frozen.

    `precision` is that of the factors in products with frozen weights; None: the weights' own.
    """
    _keep_gptqmodel_out()
    torch.manual_seed(seed)  # A is random
    config = LoraConfig(
        r=hyperparameters.lora_rank,
        lora_alpha=hyperparameters.lora_scale * hyperparameters.lora_rank,  # peft: ΔW = (alpha / r)·BA
        lora_dropout=0.0,
        target_modules=list(modules),
        task_type="CAUSAL_LM",
    )
    adapted: nn.Module = get_peft_model(model, config)
    use_one_operation(adapted, torch_precision(precision))
    return adapted


def _keep_gptqmodel_out() -> None:
    """Stops PEFT from asking GPTQModel whether each layer is one of its own.

    GPTQModel takes 10 s to import and logs to the terminal, and the layers here are plain ones.
    """
    for module in (awq, gptq, other, quantization_utils):
        module.is_gptqmodel_available = lambda: False


def lora_factors(adapted: nn.Module) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    """Returns (layer, projection) → A, shape (rank, in), and a·B, shape (out, rank): ΔW is their product a·B·A."""
    factors: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    for name, module in adapted.named_modules():
        if isinstance(module, LoraLayer):
            layer, projection = LAYER_PATTERN.search(name), name.rsplit(".", 1)[-1]
            assert layer is not None, f"{name} is in no decoder layer"
            scaling = module.scaling["default"]
            factors[int(layer[1]), projection] = (
                module.lora_A["default"].weight,
                scaling * module.lora_B["default"].weight,
            )
    return factors


def merge_lora(adapted: nn.Module) -> nn.Module:
    """Returns the plain model with W + a·BA in place of W."""
    merged: nn.Module = adapted.merge_and_unload()  # type: ignore[operator]
    return merged


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Returns the projections that LoRA adapts and GPTQ quantizes, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in PROJECTIONS
    }
