"""What llama.cpp computes for each model type, and what of a configuration it can't: refused before anything is built.

Sources: llama.cpp b11549, `src/models/*.cpp` (one file an architecture), `src/llama-model.cpp` (how positions turn).
Much of a model is in its code and not in the file: activation, cadence of windows, layers without positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewright_builder.fit.configuration.families import (
    FAMILIES,
    decoder_config,
    layers_with_positions,
    window_of,
    windowed_layers,
)
from edgewright_builder.fit.configuration.features import longest_sequence, rope_parameters, rope_type

SILU = frozenset({"silu", "swish"})
GELU_TANH = frozenset({"gelu_pytorch_tanh", "gelu_new", "gelu_fast"})
PLAIN_ROPES = frozenset(
    {"default", "dynamic", "linear", "yarn"}
)  # `dynamic` up to the model's maximum is plain
YARN_DEFAULTS: Mapping[str, float] = {"beta_fast": 32.0, "beta_slow": 1.0}
UNKNOWN_TO_YARN = ("attention_factor", "mscale", "mscale_all_dim", "truncate")
POSITIONS_EVERY = 4  # SmolLM3: each fourth layer has none
Q4_0_WEIGHTS = 32  # that share a scale


@dataclass(frozen=True)
class LlamaCppFamily:
    """How llama.cpp computes one model type."""

    architecture: str  # `general.architecture` of the file
    turns_neighbours: bool = False  # positions turn elements 2i and 2i+1, not the halves of a head
    activations: frozenset[str] = SILU
    biases: frozenset[str] = frozenset()  # the keys of config.json whose biases it adds
    ropes: frozenset[str] = PLAIN_ROPES
    partial_rotary: bool = False
    windows: bool = False  # whether a layer may see a window only
    norm_offset: float = 0.0  # what its file has added to the weight of each norm
    always_tied: bool = False  # it takes the embedding for the head
    large_layers: int | None = (
        None  # at this depth attention is scaled by hidden size and heads, not head size
    )


_GEMMA_BASE: dict[str, Any] = {"activations": GELU_TANH, "norm_offset": 1.0}
LLAMA_CPP: Mapping[str, LlamaCppFamily] = {
    "llama": LlamaCppFamily(
        "llama", turns_neighbours=True, biases=frozenset({"attention_bias", "mlp_bias"}),
        ropes=PLAIN_ROPES | {"llama3"},
    ),
    "mistral": LlamaCppFamily("llama", turns_neighbours=True, ropes=PLAIN_ROPES | {"llama3"}),
    "qwen2": LlamaCppFamily("qwen2"),
    "qwen3": LlamaCppFamily("qwen3"),
    "smollm3": LlamaCppFamily("smollm3", turns_neighbours=True),
    "gemma": LlamaCppFamily("gemma", **_GEMMA_BASE, always_tied=True),
    "gemma2": LlamaCppFamily("gemma2", **_GEMMA_BASE, always_tied=True, windows=True, large_layers=46),
    "gemma3_text": LlamaCppFamily("gemma3", **_GEMMA_BASE, windows=True, large_layers=62),
    "phi3": LlamaCppFamily("phi3", ropes=frozenset({"default", "longrope"}), partial_rotary=True),
    "granite": LlamaCppFamily(
        "granite", turns_neighbours=True, biases=frozenset({"attention_bias", "mlp_bias"}),
        ropes=PLAIN_ROPES | {"llama3"},
    ),
}  # fmt: skip


def model_type_of(config: Mapping[str, Any]) -> str:
    """Returns the text decoder's model type."""
    model_type = str(decoder_config(config).get("model_type") or config.get("model_type"))
    return "gemma3_text" if model_type == "gemma3" else model_type


def facts_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the text decoder's configuration with the defaults of its model type filled in."""
    family = FAMILIES[model_type_of(config)]
    facts = {**family.defaults, **decoder_config(config)}
    heads = facts["num_attention_heads"]
    facts["num_key_value_heads"] = facts.get("num_key_value_heads") or heads
    facts["head_dim"] = facts.get("head_dim") or family.head_dim or facts["hidden_size"] // heads
    tied = facts.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    facts["tie_word_embeddings"] = family.tied_by_default if tied is None else bool(tied)
    return facts


def longest_for_llama_cpp(config: Mapping[str, Any]) -> tuple[int, str]:
    """Returns the longest sequence that llama.cpp computes as transformers does, and what sets that limit."""
    model_type, facts = model_type_of(config), facts_of(config)
    longest, limited_by = longest_sequence(model_type, facts)
    window = window_of(FAMILIES[model_type], facts)
    if window is None or LLAMA_CPP[model_type].windows or window >= longest:
        return longest, limited_by
    return window, f"llama.cpp computes no windows for {model_type} models: `sliding_window`"


def as_llama_cpp_serves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the decoder's configuration as far as llama.cpp serves it, from one that it can compute.

    A model type that it computes no windows for is served up to its window, as if it had none. And at a depth of its
    own it scales attention by other sizes (`_scales`), which a model of few layers can't show: there by the head's.
    """
    model_type, facts = model_type_of(config), facts_of(config)
    family, served = LLAMA_CPP[model_type], {**facts, "model_type": model_type}
    if not family.windows:
        served |= {"sliding_window": None, "use_sliding_window": False, "layer_types": None}
    if facts["num_hidden_layers"] == family.large_layers:
        served["query_pre_attn_scalar"] = facts["head_dim"]
    return served


def why_not_llama_cpp(config: Mapping[str, Any]) -> str | None:
    """Returns what of this configuration llama.cpp can't compute, or Q4_0 can't hold; None where it is nothing."""
    model_type = model_type_of(config)
    if model_type not in LLAMA_CPP:
        return (
            f"llama.cpp's export does not know the model type {model_type}; known are {', '.join(LLAMA_CPP)}"
        )
    family, facts = LLAMA_CPP[model_type], facts_of(config)
    rules = (_widths, _activation, _biases, _rotary, _layers, _scales, _head)
    return next((why for rule in rules if (why := rule(model_type, family, facts)) is not None), None)


def _widths(model_type: str, family: LlamaCppFamily, facts: Mapping[str, Any]) -> str | None:
    query = facts["num_attention_heads"] * facts["head_dim"]
    for name, width in (
        ("hidden_size", facts["hidden_size"]),
        ("heads · head_dim", query),
        ("intermediate_size", facts["intermediate_size"]),
    ):
        if width % Q4_0_WEIGHTS:
            return f"Q4_0 holds blocks of {Q4_0_WEIGHTS} weights, and {name} is {width}, no multiple of that"
    if model_type in ("qwen2", "phi3") and query != facts["hidden_size"]:
        width = facts["hidden_size"]
        return f"llama.cpp takes heads · head_dim = hidden_size for {model_type}; here {query} and {width}"
    return None


def _activation(model_type: str, family: LlamaCppFamily, facts: Mapping[str, Any]) -> str | None:
    told = FAMILIES[model_type]
    name = facts.get(told.activation_key) or told.activation
    if name in family.activations or (
        model_type == "gemma" and name == "gelu"
    ):  # transformers reads it as tanh's
        return None
    return (
        f"llama.cpp computes {' or '.join(sorted(family.activations))} for {model_type}; "
        f"config.json asks for `{told.activation_key}: {name}`"
    )


def _biases(model_type: str, family: LlamaCppFamily, facts: Mapping[str, Any]) -> str | None:
    asked = [key for key in FAMILIES[model_type].bias_keys if facts.get(key) and key not in family.biases]
    return f"llama.cpp adds no biases of `{asked[0]}` for {model_type} models" if asked else None


def _rotary(model_type: str, family: LlamaCppFamily, facts: Mapping[str, Any]) -> str | None:
    sets = rope_parameters(facts)
    for parameters in sets:
        kind = rope_type(model_type, parameters)
        if kind not in family.ropes:
            return f"llama.cpp computes no `rope_type: {kind}` for {model_type} models"
        if kind == "yarn" and (why := _yarn(parameters)):
            return why
        partial = parameters.get("partial_rotary_factor") or facts.get("partial_rotary_factor") or 1.0
        if partial != 1.0 and not family.partial_rotary:
            return f"llama.cpp turns whole heads of {model_type} models; `partial_rotary_factor` is {partial}"
        if int(facts["head_dim"] * partial) % 2:
            turned = int(facts["head_dim"] * partial)
            return f"llama.cpp turns elements in pairs; `partial_rotary_factor: {partial}` turns {turned} of a head"
    local = facts.get("rope_parameters") or {}
    windowed = local.get("sliding_attention") if isinstance(local, Mapping) else None
    if isinstance(windowed, Mapping) and rope_type(model_type, windowed) != "default":
        return "llama.cpp scales no positions of layers with a window"
    return None


def _yarn(parameters: Mapping[str, Any]) -> str | None:
    asked = [key for key in UNKNOWN_TO_YARN if parameters.get(key) not in (None, True)]
    return f"llama.cpp's YaRN has no `{asked[0]}`" if asked else None


def _layers(model_type: str, family: LlamaCppFamily, facts: Mapping[str, Any]) -> str | None:
    layers = facts["num_hidden_layers"]
    if model_type == "smollm3":
        expected = [(index + 1) % POSITIONS_EVERY != 0 for index in range(layers)]
        if layers_with_positions(facts, layers) != expected:
            return (
                f"llama.cpp takes each {POSITIONS_EVERY}th layer of SmolLM3 to have no positions; these layers have "
                "another pattern. Keep every layer (`student.depth: full`)"
            )
    return None


def _scales(model_type: str, family: LlamaCppFamily, facts: Mapping[str, Any]) -> str | None:
    if model_type in ("gemma2", "gemma3_text"):
        head_dim, heads = facts["head_dim"], facts["num_attention_heads"]
        large = facts["num_hidden_layers"] == family.large_layers
        expected = facts["hidden_size"] // heads if large else head_dim
        scalar = facts.get("query_pre_attn_scalar", 256)
        if scalar != expected:
            return f"llama.cpp scales attention by the root of {expected} here; `query_pre_attn_scalar` is {scalar}"
    if model_type == "gemma2":
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if key in facts and not facts[key]:
                return f"llama.cpp always caps with `{key}`, and config.json has none"
    return None


def _head(model_type: str, family: LlamaCppFamily, facts: Mapping[str, Any]) -> str | None:
    if family.always_tied and not facts["tie_word_embeddings"]:
        return f"llama.cpp takes the embedding of a {model_type} model for its head; `tie_word_embeddings` is false"
    return None


def windows_by_layer(config: Mapping[str, Any]) -> list[bool]:
    """Returns, layer by layer, whether it sees a window only."""
    model_type, facts = model_type_of(config), facts_of(config)
    return windowed_layers(FAMILIES[model_type], facts, facts["num_hidden_layers"])
