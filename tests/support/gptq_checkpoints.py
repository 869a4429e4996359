"""GPTQ checkpoints of tiny models of every family, with any codes and scales: what a repack keeps to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewright_builder.parity.checkpoint import SYMMETRIC_ZEROS, make_checkpoint

WIDE: Mapping[str, Any] = {
    "vocab_size": 263, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 256,
    "hidden_act": "silu", "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
SQUARE = {**WIDE, "head_dim": None, "hidden_size": 256}
GEMMA = {**WIDE, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 64, "sliding_window": 48}
GEMMA_3_ROPES = {
    kind: {"rope_type": "default", "rope_theta": theta}
    for kind, theta in (("full_attention", 1e6), ("sliding_attention", 1e4))
}
# One for each way in which llama.cpp's file differs from the checkpoint.
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {**WIDE, "model_type": "llama"},
    "llama, biases, untied": {
        **WIDE, "model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
    },
    "mistral": {**WIDE, "model_type": "mistral", "sliding_window": None, "tie_word_embeddings": False},
    "qwen2": {**SQUARE, "model_type": "qwen2"},
    "qwen3": {**WIDE, "model_type": "qwen3"},
    "smollm3": {**WIDE, "model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0]},
    "gemma": {**WIDE, "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh"},
    "gemma2": {
        **GEMMA, "model_type": "gemma2", "attn_logit_softcapping": 5.0, "final_logit_softcapping": 5.0,
    },
    "gemma3": {**GEMMA, "model_type": "gemma3_text", "num_hidden_layers": 7, "rope_parameters": GEMMA_3_ROPES},
    "gemma3, layers left out": {
        **GEMMA, "model_type": "gemma3_text", "rope_parameters": GEMMA_3_ROPES,
        "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
    },
    "phi3": {**SQUARE, "model_type": "phi3", "sliding_window": None, "tie_word_embeddings": False},
    "granite": {
        **WIDE, "model_type": "granite", "head_dim": None, "hidden_size": 256, "embedding_multiplier": 12.0,
        "logits_scaling": 8.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1,
    },
}  # fmt: skip


def random_checkpoint(config: Mapping[str, Any], folder: Path, group_size: int, seed: int = 0) -> Path:
    """Writes a checkpoint whose packed words are random bits and whose scales are any float16. Returns its folder."""
    make_checkpoint({key: value for key, value in config.items() if value is not None}, folder, seed)
    draw = torch.Generator().manual_seed(seed)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for layer in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        tensors |= {
            f"{layer}.{part}": value for part, value in _random(tensors, layer, group_size, draw).items()
        }
    save_file(tensors, path, {"format": "pt"})
    change_config(folder, group_size=group_size)
    return folder


def change_config(folder: Path, **quantization: Any) -> None:
    """Changes settings of the checkpoint's quantization."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] |= quantization
    path.write_text(json.dumps(config), encoding="utf-8")


def _random(
    tensors: Mapping[str, Tensor], layer: str, group_size: int, draw: torch.Generator
) -> dict[str, Tensor]:
    words, outputs = tensors[f"{layer}.qweight"].shape
    inputs = words * 8
    groups = inputs // group_size
    exponents = torch.randint(
        -20, 2, (groups, outputs), generator=draw
    )  # down to float16's subnormal numbers
    return {
        "qweight": torch.randint(-(2**31), 2**31, (words, outputs), generator=draw).to(torch.int32),
        "scales": ((2 * torch.rand((groups, outputs), generator=draw) - 1) * 2.0**exponents).half(),
        "qzeros": torch.full((groups, outputs // 8), SYMMETRIC_ZEROS, dtype=torch.int32),
        "g_idx": (torch.arange(inputs) // group_size).to(torch.int32),
    }
