"""A GPTQ checkpoint of the tiny Llama, written without GPTQModel: rounded to nearest and packed.

Every second scale is negative. GPTQModel writes none, and AutoRound about half of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewright_builder.recipe.model_recipe import PROJECTIONS
from tests.support.tiny_models import tiny_model, tiny_tokenizer

GROUP_SIZE = 32


def packed(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """A linear layer (out, in) as GPTQ v1 stores it, and the weight that this is."""
    rows, columns = weight.shape
    groups = weight.reshape(rows, -1, GROUP_SIZE)
    scales = (groups.abs().amax(-1, keepdim=True) / 7).half().float()
    scales[:, 1::2] *= -1
    codes = ((groups / scales).round().clamp(-8, 7) + 8).reshape(rows, columns).to(torch.int32)
    words = torch.zeros(columns // 8, rows, dtype=torch.int32)
    for place in range(8):
        words |= codes.T[place::8] << (4 * place)
    scales = scales.squeeze(-1)
    tensors = {
        "qweight": words,
        "scales": scales.T.half().contiguous(),
        "qzeros": torch.full((scales.shape[1], rows // 8), 0x77777777, dtype=torch.int32),
        "g_idx": torch.arange(columns, dtype=torch.int32) // GROUP_SIZE,
    }
    return tensors, (codes - 8) * scales.repeat_interleave(GROUP_SIZE, dim=1)


def write_quantized(folder: Path) -> tuple[Path, Path]:
    """Returns the folders of a GPTQ checkpoint and of the plain checkpoint of the very same weights."""
    gptq, plain = folder / "gptq", folder / "plain"
    tiny_model(1).save_pretrained(plain)
    for each in (gptq, plain):
        tiny_tokenizer().save_pretrained(each)
    ours: dict[str, Tensor] = {}
    state = load_file(plain / "model.safetensors")
    for name in list(state):
        if name.split(".")[-2] in PROJECTIONS:
            tensors, state[name] = packed(state[name])
            ours |= {name.replace("weight", part): tensor for part, tensor in tensors.items()}
        else:
            ours[name] = state[name]
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        plain / "model.safetensors",
        {"format": "pt"},
    )
    save_file(ours, gptq / "model.safetensors", {"format": "pt"})
    config = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "gptq", "bits": 4, "group_size": GROUP_SIZE, "sym": True, "desc_act": False,
    }  # fmt: skip
    (gptq / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return gptq, plain
