"""LoRA with PEFT: put it on, merge it, and which layers it goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer, awq, gptq
from peft.utils import other, quantization_utils
from torch import Tensor, nn

from edgewright_builder.recipe.model import PROJECTIONS, Optimizer

LINEAR_NAMES = PROJECTIONS
LAYER_PATTERN = re.compile(r"\.layers\.(\d+)\.")

# PEFT asks GPTQModel whether each layer is one of its own, which takes 10 s to import and logs to the terminal. The
# layers here are plain ones.
for _module in (awq, gptq, other, quantization_utils):
    _module.is_gptqmodel_available = lambda: False


@dataclass(frozen=True)
class Hyperparameters:
    """The paper's Table 1, and the optimizer."""

    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    lora_rank: int
    lora_scale: float  # a: ΔW = a·BA
    temperature: float
    alpha: float


def add_lora(
    model: nn.Module, hyperparameters: Hyperparameters, seed: int, modules: Sequence[str] = LINEAR_NAMES
) -> nn.Module:
    """`model` with trainable LoRA factors on every linear layer of these names, the rest frozen."""
    torch.manual_seed(seed)  # A is random
    config = LoraConfig(
        r=hyperparameters.lora_rank,
        lora_alpha=hyperparameters.lora_scale * hyperparameters.lora_rank,  # peft: ΔW = (alpha / r)·BA
        lora_dropout=0.0,
        target_modules=list(modules),
        task_type="CAUSAL_LM",
    )
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


def lora_factors(adapted: nn.Module) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    """(layer, projection) → A, shape (rank, in), and a·B, shape (out, rank): ΔW is their product a·B·A."""
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
    """The plain model with W + a·BA in place of W."""
    merged: nn.Module = adapted.merge_and_unload()  # type: ignore[operator]
    return merged


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The projections that LoRA adapts and GPTQ quantizes, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in LINEAR_NAMES
    }
