"""A GPTQ checkpoint as a plain model: the weights that 4 bits left, in floats, to train on or to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from edgewright.errors import InputError
from edgewright_builder.quantization.delta_aware import ZERO, unpack

PARTS = ("qweight", "qzeros", "scales", "g_idx")


def load_dequantized(checkpoint: Path, dtype: torch.dtype | None = None) -> nn.Module:
    """Returns the model in `checkpoint` with every quantized weight as its float: w = (code − 8)·scale of its group.

    Raises InputError where it is no symmetric 4-bit GPTQ v1 checkpoint without act-order.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(checkpoint)
    _require_symmetric(checkpoint, getattr(config, "quantization_config", None))
    del config.quantization_config
    if dtype is None:
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype)
    state = dequantized_state(read_tensors(checkpoint))
    missing = set(model.load_state_dict(state, strict=False).missing_keys) - _tied(model)
    if missing:
        raise InputError(
            f"{checkpoint} lacks {len(missing)} tensors, the first is {min(missing)}. Build the base again."
        )
    if torch.cuda.is_available():
        model = model.to("cuda")
    return model.eval()


def dequantized_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns plain weights, (out, in) each, in place of GPTQ's packed tensors; others stay as they are.

    Raises InputError where the groups are not stretches of consecutive inputs.
    """
    state = {name: tensor for name, tensor in tensors.items() if name.rsplit(".", 1)[-1] not in PARTS}
    for layer in sorted(name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")):
        frozen = unpack(*(tensors[f"{layer}.{part}"] for part in ("qweight", "scales", "qzeros")))
        groups = tensors.get(f"{layer}.g_idx")
        if groups is not None and not _consecutive(groups, frozen.group_size):
            raise InputError(
                f"{layer} was quantized with act-order (`desc_act`); expected a checkpoint without. "
                "Build it with Edgewright."
            )
        state[f"{layer}.weight"] = (frozen.codes - ZERO) * frozen.column_scales
    return state


def _consecutive(groups: Tensor, group_size: int) -> bool:
    return bool((groups == torch.arange(len(groups), device=groups.device) // group_size).all())


def read_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Returns every tensor of a checkpoint by its name."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return tensors


def _tied(model: nn.Module) -> set[str]:
    config: Any = model.config
    return {"lm_head.weight"} if config.tie_word_embeddings else set()


def _require_symmetric(checkpoint: Path, found: Any) -> None:
    settings = found if isinstance(found, dict) else getattr(found, "__dict__", {})
    if (settings.get("bits"), settings.get("sym"), settings.get("desc_act")) != (4, True, False):
        raise InputError(
            f"{checkpoint} is no symmetric 4-bit GPTQ checkpoint without act-order. Build the base with Edgewright."
        )
