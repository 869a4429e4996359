"""Configurations of tiny models, one for each way of computing that a config.json can ask for.

Their sizes are small already, so that a proof makes nothing of them smaller but their limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ORIGINAL = 128
LLAMA: Mapping[str, Any] = {
    "model_type": "llama", "vocab_size": 258, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512,
    "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": None}
QWEN_2 = {**LLAMA, "model_type": "qwen2"}
QWEN_3 = {**LLAMA, "model_type": "qwen3", "head_dim": 64}
SMOLLM_3 = {**LLAMA, "model_type": "smollm3", "num_hidden_layers": 4}
PHI_3 = {**LLAMA, "model_type": "phi3", "num_key_value_heads": 2, "sliding_window": None} | {"head_dim": None}
GEMMA = {**LLAMA, "model_type": "gemma", "hidden_act": "gelu_pytorch_tanh"}
GEMMA_2 = {
    **GEMMA, "model_type": "gemma2", "sliding_window": 64, "num_hidden_layers": 4, "query_pre_attn_scalar": 40,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
}  # fmt: skip
GEMMA_3 = {
    **GEMMA, "model_type": "gemma3_text", "sliding_window": 64, "num_hidden_layers": 6, "query_pre_attn_scalar": 40,
    "rope_theta": 1e6, "rope_local_base_freq": 1e4,
}  # fmt: skip
GRANITE = {
    **LLAMA, "model_type": "granite", "embedding_multiplier": 12.0, "logits_scaling": 8.0,
    "residual_multiplier": 0.22, "attention_multiplier": 0.3,
}  # fmt: skip


def rope(kind: str, **fields: Any) -> dict[str, Any]:
    """Positions of that kind, as transformers 5 writes them."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **fields}}


def factors(pairs: int) -> dict[str, Any]:
    """LongRoPE's factors for so many pairs of elements."""
    return {"short_factor": [1.0] * pairs, "long_factor": [4.0] * pairs}


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=ORIGINAL)
LINEAR = rope("linear", factor=4.0)
SUPPORTED: Mapping[str, Mapping[str, Any]] = {
    "llama": LLAMA,
    "llama, linear": {**LLAMA, **LINEAR},
    "llama, linear as older files spell it": {
        **LLAMA, "rope_theta": 5e3, "rope_scaling": {"type": "linear", "factor": 3.0},
    },
    "llama, dynamic": {**LLAMA, **rope("dynamic", factor=4.0)},
    "llama, llama3": {
        **LLAMA, **rope("llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=ORIGINAL),
    },
    "llama, yarn": {**LLAMA, **YARN},
    "llama, yarn with all factors": {
        **LLAMA, **rope("yarn", factor=4.0, original_max_position_embeddings=ORIGINAL, attention_factor=1.3,
                        beta_fast=16.0, beta_slow=2.0, truncate=False),
    },
    "llama, yarn with mscale": {
        **LLAMA, **rope("yarn", factor=4.0, original_max_position_embeddings=ORIGINAL, mscale=0.7, mscale_all_dim=1.1),
    },
    "llama, longrope": {
        **LLAMA, **rope("longrope", factor=4.0, original_max_position_embeddings=ORIGINAL, **factors(16)),
    },
    "llama, proportional": {**LLAMA, **rope("proportional", partial_rotary_factor=0.5)},
    "llama, attention biases": {**LLAMA, "attention_bias": True},
    "llama, all biases, untied": {
        **LLAMA, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
    },
    **{f"llama, {name}": {**LLAMA, "hidden_act": name} for name in ("gelu", "gelu_new", "relu", "relu2")},
    **{f"llama, heads of {size}": {**LLAMA, "head_dim": size} for size in (8, 24, 50, 80, 100, 104, 192, 256)},
    "llama, no grouped heads": {**LLAMA, "num_key_value_heads": 2},
    "llama, three queries a group": {**LLAMA, "num_attention_heads": 9, "num_key_value_heads": 3},
    "llama, four queries a group, heads of a size of their own": {**LLAMA, "num_attention_heads": 4},
    "mistral": MISTRAL,
    "mistral, windows": {**MISTRAL, "sliding_window": 64},
    "mistral, windows, yarn, heads of 100": {**MISTRAL, "sliding_window": 64, "head_dim": 100, **YARN},
    "qwen2": QWEN_2,
    "qwen2, windows in the last layers": {
        **QWEN_2, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1,
    },
    "qwen2, windows in every other layer": {
        **QWEN_2, "use_sliding_window": True, "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen2, yarn": {**QWEN_2, **YARN},
    "qwen3": QWEN_3,
    "qwen3, biases, heads of 100": {**QWEN_3, "attention_bias": True, "head_dim": 100},
    "qwen3, windows, yarn": {
        **QWEN_3, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1, **YARN,
    },
    "smollm3": SMOLLM_3,
    "smollm3, biases": {**SMOLLM_3, "attention_bias": True, "mlp_bias": True},
    "smollm3, windows, yarn": {**SMOLLM_3, "use_sliding_window": True, "sliding_window": 64, **YARN},
    "smollm3, heads of 100": {**SMOLLM_3, "head_dim": 100},
    "phi3": PHI_3,
    "phi3, windows": {**PHI_3, "sliding_window": 64},
    "phi3, three quarters turned": {**PHI_3, "partial_rotary_factor": 0.75},
    "phi3, longrope": {
        **PHI_3, "original_max_position_embeddings": ORIGINAL, "rope_scaling": {"type": "su", **factors(16)},
    },
    "phi3, longrope, three quarters turned": {
        **PHI_3, "original_max_position_embeddings": ORIGINAL, "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope", **factors(12)},
    },
    "gemma": GEMMA,
    "gemma, exact gelu": {**GEMMA, "hidden_act": "gelu"},
    "gemma2": GEMMA_2,
    "gemma2, no caps": {**GEMMA_2, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    "gemma2, linear, heads of 100": {**GEMMA_2, **LINEAR, "head_dim": 100},
    "gemma3": GEMMA_3,
    "gemma3, linear": {**GEMMA_3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "gemma3, each kind scaled": {
        **GEMMA_3,
        "rope_parameters": {
            "full_attention": {**YARN["rope_parameters"], "rope_theta": 1e6},
            "sliding_attention": LINEAR["rope_parameters"],
        },
    },
    "gemma3, biases, untied, heads of 100": {
        **GEMMA_3, "attention_bias": True, "tie_word_embeddings": False, "head_dim": 100,
    },
    "gemma3, pictures beside": {"model_type": "gemma3", "text_config": dict(GEMMA_3), "vision_config": {}},
    "granite": GRANITE,
    "granite, biases, untied, yarn": {
        **GRANITE, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False, **YARN,
    },
}  # fmt: skip
# llama.cpp scales Gemma's attention by the root of the head's size.
SUPPORTED_BY_LLAMA_CPP: Mapping[str, Mapping[str, Any]] = {
    "gemma2, its own scale": {**GEMMA_2, "query_pre_attn_scalar": 32},
    "gemma2, its own scale, linear": {**GEMMA_2, "query_pre_attn_scalar": 32, **LINEAR},
    "gemma3, its own scale": {**GEMMA_3, "query_pre_attn_scalar": 32},
    "gemma3, its own scale, linear": {
        **GEMMA_3,
        "query_pre_attn_scalar": 32,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "gemma3, its own scale, of 62 layers": {**GEMMA_3, "num_hidden_layers": 62, "query_pre_attn_scalar": 32},
    "gemma3, its own scale, capped": {
        **GEMMA_3,
        "query_pre_attn_scalar": 32,
        "final_logit_softcapping": 30.0,
    },
}
