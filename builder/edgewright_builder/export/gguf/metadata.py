"""The numbers of a model in a GGUF's header, by the names of github.com/ggml-org/ggml, docs/gguf.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgewright_builder.export.gguf.rope import write_rope
from edgewright_builder.fit.configuration.families import FAMILIES, window_of
from edgewright_builder.fit.configuration.llama_cpp import (
    facts_of,
    longest_for_llama_cpp,
    model_type_of,
    windows_by_layer,
)

if TYPE_CHECKING:
    from gguf import GGUFWriter

QUANTIZATION_VERSION = 2  # of ggml's block formats
GEMMA_2_CAPS = {
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}  # where config.json names none
# Granite's multipliers, each 1 where config.json names none (attention: 1 is what transformers then takes, too).
GRANITE_SCALES = {
    "attention_multiplier": "add_attention_scale",
    "embedding_multiplier": "add_embedding_scale",
    "residual_multiplier": "add_residual_scale",
    "logits_scaling": "add_logit_scale",
}


def write_metadata(writer: GGUFWriter, config: Mapping[str, Any], name: str) -> None:
    """Writes what llama.cpp has to know of a model besides its tensors and its tokenizer."""
    model_type, facts = model_type_of(config), facts_of(config)
    writer.add_name(name)
    writer.add_quantization_version(QUANTIZATION_VERSION)
    writer.add_context_length(longest_for_llama_cpp(config)[0])
    writer.add_vocab_size(facts["vocab_size"])
    writer.add_embedding_length(facts["hidden_size"])
    writer.add_block_count(facts["num_hidden_layers"])
    writer.add_feed_forward_length(facts["intermediate_size"])
    writer.add_head_count(facts["num_attention_heads"])
    writer.add_head_count_kv(facts["num_key_value_heads"])
    writer.add_key_length(facts["head_dim"])
    writer.add_value_length(facts["head_dim"])
    writer.add_layer_norm_rms_eps(float(facts.get("rms_norm_eps", FAMILIES[model_type].norm_epsilon)))
    write_rope(writer, model_type, facts)
    _write_windows(writer, model_type, facts, config)
    _write_scales(writer, model_type, facts)


def _write_windows(
    writer: GGUFWriter, model_type: str, facts: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Which layers see how much: by layer, since a student may have lost some."""
    window = window_of(FAMILIES[model_type], facts)
    if window is None or model_type not in ("gemma2", "gemma3_text"):
        return
    writer.add_sliding_window(window)
    writer.add_sliding_window_pattern(windows_by_layer(config))


def _write_scales(writer: GGUFWriter, model_type: str, facts: Mapping[str, Any]) -> None:
    if model_type == "gemma2":
        writer.add_attn_logit_softcapping(_cap(facts, "attn_logit_softcapping"))
        writer.add_final_logit_softcapping(_cap(facts, "final_logit_softcapping"))
    if model_type == "gemma3_text" and facts.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(float(facts["final_logit_softcapping"]))
    if model_type == "granite":
        for key, method in GRANITE_SCALES.items():
            getattr(writer, method)(float(facts.get(key, 1.0)))


def _cap(facts: Mapping[str, Any], key: str) -> float:
    return float(facts.get(key, GEMMA_2_CAPS[key]))
