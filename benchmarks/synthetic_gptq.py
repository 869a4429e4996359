"""The release that vLLM would be given for a model of a given shape: a GPTQ checkpoint with random codes.

Memory and speed do not depend on the values. The tensors are GPTQModel's for 4 bits, symmetric, without act-order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from edgewright_builder.fit.architecture import Architecture

ZEROS = 0x77777777  # eight zero points of 8, stored less one as GPTQ v1 does


def write_synthetic_gptq(model: Architecture, group_size: int, folder: Path) -> None:
    """Writes config.json and model.safetensors of a Llama into the empty `folder`, embedding and norms in float16."""
    torch.manual_seed(0)
    save_file(dict(tensors(model, group_size)), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config(model, group_size)), encoding="utf-8")


def config(model: Architecture, group_size: int) -> dict[str, object]:
    """What vLLM reads."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", "hidden_act": "silu",
        "vocab_size": model.vocab_size, "hidden_size": model.hidden_size, "num_hidden_layers": model.layers,
        "intermediate_size": model.intermediate_size, "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim, "rms_norm_eps": 1e-5,
        "max_position_embeddings": model.max_context_tokens, "tie_word_embeddings": model.tied_embeddings,
        "bos_token_id": 1, "eos_token_id": 2,
        "quantization_config": {
            "quant_method": "gptq", "bits": 4, "group_size": group_size, "sym": True, "desc_act": False,
            "checkpoint_format": "gptq", "lm_head": False,
        },
    }  # fmt: skip


def tensors(model: Architecture, group_size: int) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its name."""
    hidden, wide = model.hidden_size, model.intermediate_size
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    yield "model.embed_tokens.weight", 0.02 * torch.randn(model.vocab_size, hidden, dtype=torch.float16)
    yield "model.norm.weight", torch.ones(hidden, dtype=torch.float16)
    if not model.tied_embeddings:
        yield "lm_head.weight", 0.02 * torch.randn(model.vocab_size, hidden, dtype=torch.float16)
    shapes = {
        "self_attn.q_proj": (hidden, query), "self_attn.k_proj": (hidden, key), "self_attn.v_proj": (hidden, key),
        "self_attn.o_proj": (query, hidden), "mlp.gate_proj": (hidden, wide), "mlp.up_proj": (hidden, wide),
        "mlp.down_proj": (wide, hidden),
    }  # fmt: skip
    for layer in range(model.layers):
        name = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{name}.{norm}.weight", torch.ones(hidden, dtype=torch.float16)
        for module, (inputs, outputs) in shapes.items():
            yield from _linear(f"{name}.{module}", inputs, outputs, group_size)


def _linear(name: str, inputs: int, outputs: int, group_size: int) -> Iterator[tuple[str, Tensor]]:
    groups = inputs // group_size
    yield f"{name}.qweight", torch.randint(-(2**31), 2**31, (inputs // 8, outputs), dtype=torch.int32)
    yield f"{name}.scales", torch.full((groups, outputs), 0.004, dtype=torch.float16)
    yield f"{name}.qzeros", torch.full((groups, outputs // 8), ZEROS, dtype=torch.int32)
    yield f"{name}.g_idx", torch.arange(inputs, dtype=torch.int32) // group_size
