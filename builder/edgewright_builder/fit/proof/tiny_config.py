"""A tiny configuration that computes in every way a large one does: same features, small sizes.

What decides how a model computes is kept: kinds of positions and their factors, windows, layers without positions, head
size, grouped heads, biases, activation, scales, caps, tied embeddings. What only makes it large is not. Limits are
shrunk so that a sequence of `TOKENS` passes every one of them: a window, the length that positions are scaled from.
Two configurations that compute alike give the same tiny one, however they are spelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewright_builder.fit.configuration.families import (
    FAMILIES,
    Family,
    decoder_config,
    layers_with_positions,
    window_of,
    windowed_layers,
)
from edgewright_builder.fit.configuration.features import longest_sequence, rope_parameters, rope_type

TOKENS = 192  # of the sequence that is compared
POSITIONS = 256  # the tiny model's maximum
WINDOW = 48  # of its windowed layers
ORIGINAL_POSITIONS = 64  # what its positions are scaled from
# A byte-level vocabulary. No projection is as wide: the exporter takes any linear of that width for the output head.
VOCABULARY = 263
GROUP = 32  # of quantization: input dimensions are multiples of it
LAYERS_OF_A_KIND = 2
PERIOD = 4  # SmolLM3's layers without positions come in a cadence, which llama.cpp has in its code
HIDDEN_SIZES = (96, 160, 192)  # no squares: the root of a square hides how an embedding's scale is rounded
INTERMEDIATE_SIZE = 128
HEADS_A_GROUP_MAX = 3
NORM_EPSILON = 1e-5
SOFTCAP_MAX = 5.0  # a cap that random scores do not reach would prove nothing
GEMMA_SCALES = ("query_pre_attn_scalar", "final_logit_softcapping")
SCALES: Mapping[str, tuple[str, ...]] = {
    "gemma2": GEMMA_SCALES,
    "gemma3_text": GEMMA_SCALES,
    "granite": ("attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"),
}
ROPE_THETA_OF_GEMMA_3 = {"full_attention": 1_000_000.0, "sliding_attention": 10_000.0}


@dataclass(frozen=True)
class _Large:
    """A configuration that is made tiny."""

    model_type: str
    family: Family
    facts: Mapping[str, Any]

    @property
    def head_dim(self) -> int:
        stated = self.facts.get("head_dim") or self.family.head_dim
        return int(stated or self.facts["hidden_size"] // self.facts["num_attention_heads"])


def tiny_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tiny configuration of `config`, a config.json that `architecture_from_config` accepts."""
    facts = decoder_config(config)
    model_type = str(facts.get("model_type") or config["model_type"])
    model_type = {"gemma3": "gemma3_text"}.get(model_type, model_type)
    family = FAMILIES[model_type]
    large = _Large(model_type, family, {**family.defaults, **facts})
    tied = facts.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return {
        "model_type": model_type,
        "vocab_size": VOCABULARY,
        "intermediate_size": INTERMEDIATE_SIZE,
        "tie_word_embeddings": family.tied_by_default if tied is None else bool(tied),
        "rms_norm_eps": NORM_EPSILON,
        family.activation_key: facts.get(family.activation_key) or family.activation,
        **{key: True for key in family.bias_keys if facts.get(key)},
        **{key: facts[key] for key in SCALES.get(model_type, ()) if key in facts},
        **_attention_cap(large),
        **_heads(large),
        **_layers(large),
        **_positions(large),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }


def _attention_cap(large: _Large) -> dict[str, Any]:
    """Gemma 2 caps its attention scores, at 50 unless told otherwise; Gemma 3 has the key and no use for it."""
    if large.model_type != "gemma2":
        return {}
    cap = large.facts.get("attn_logit_softcapping", 50.0)
    return {"attn_logit_softcapping": None if cap is None else min(float(cap), SOFTCAP_MAX)}


def _heads(large: _Large) -> dict[str, Any]:
    """Head size as it is; so many heads as make the widths multiples of the group, grouped if the model's are."""
    facts, head_dim = large.facts, large.head_dim
    heads = int(facts["num_attention_heads"])
    kv_heads = int(facts.get("num_key_value_heads") or heads)
    group = min(heads // kv_heads, HEADS_A_GROUP_MAX)
    tiny_kv = next(n for n in range(min(kv_heads, 2), GROUP + 3) if n * group * head_dim % GROUP == 0)
    tiny_heads = tiny_kv * group
    width = tiny_heads * head_dim
    by_division = heads * head_dim == facts["hidden_size"] and large.family.head_dim is None
    return {
        "num_attention_heads": tiny_heads,
        "num_key_value_heads": tiny_kv,
        "hidden_size": width
        if by_division
        else next(size for size in HIDDEN_SIZES if size != width and size % tiny_heads == 0),
        **({} if by_division else {"head_dim": head_dim}),
    }


def _layers(large: _Large) -> dict[str, Any]:
    """Layers of each kind, windowed or not and with positions or not, as the model type spells them."""
    family, facts, count = large.family, large.facts, int(large.facts["num_hidden_layers"])
    positions = [True] * count
    if family.windows == "without_positions":
        positions = layers_with_positions(facts, count)
    all_layers = list(zip(windowed_layers(family, facts, count), positions, strict=True))
    kinds, layers = dict.fromkeys(all_layers), all_layers[:PERIOD]
    if family.windows != "without_positions" or len(kinds) == 1 or not set(layers) >= set(kinds):
        layers = list(kinds) * LAYERS_OF_A_KIND
    window, (longest, _) = window_of(family, facts), longest_sequence(large.model_type, facts)
    fields: dict[str, Any] = {"num_hidden_layers": len(layers)}
    if family.windows != "never":
        fields["sliding_window"] = None if window is None else WINDOW if window < longest else POSITIONS
    if family.windows in ("asked", "without_positions"):
        fields["use_sliding_window"] = window is not None
    if family.windows not in ("never", "all"):
        fields["layer_types"] = [
            "sliding_attention" if windowed else "full_attention" for windowed, _ in layers
        ]
    if family.windows == "without_positions":
        fields["no_rope_layers"] = [int(turned) for _, turned in layers]
    return fields


def _positions(large: _Large) -> dict[str, Any]:
    """Maxima that a short sequence passes; the kinds of positions and their factors as they are."""
    sets = rope_parameters(large.facts)
    fields: dict[str, Any] = {"max_position_embeddings": POSITIONS}
    if any(rope_type(large.model_type, each) == "longrope" for each in sets):
        fields["max_position_embeddings"] = 4 * POSITIONS
    if large.model_type == "phi3":
        fields["original_max_position_embeddings"] = POSITIONS
    if large.model_type == "gemma3_text":
        return {**fields, "rope_parameters": _positions_of_gemma_3(large)}
    return {**fields, "rope_parameters": _shrunk(large, sets[0], large.facts.get("rope_theta"))}


def _positions_of_gemma_3(large: _Large) -> dict[str, Any]:
    """Each kind of layer has frequencies of its own; older files scale those of the layers that see everything."""
    facts, given = large.facts, large.facts.get("rope_parameters") or {}
    thetas = {
        "full_attention": facts.get("rope_theta"),
        "sliding_attention": facts.get("rope_local_base_freq"),
    }
    scaled = {"full_attention": facts.get("rope_scaling") or {}}
    return {
        kind: _shrunk(
            large, {**(given.get(kind) or {}), **scaled.get(kind, {})}, theta or ROPE_THETA_OF_GEMMA_3[kind]
        )
        for kind, theta in thetas.items()
    }


def _shrunk(large: _Large, parameters: Mapping[str, Any], theta: float | None) -> dict[str, Any]:
    """One set of frequencies, scaled from fewer positions. LongRoPE's factors are made up: they are data."""
    kind = rope_type(large.model_type, parameters)
    kept = {key: value for key, value in parameters.items() if value is not None and key != "type"}
    shrunk: dict[str, Any] = {"rope_theta": theta, **kept, "rope_type": kind}
    partial = float(
        parameters.get("partial_rotary_factor") or large.facts.get("partial_rotary_factor") or 1.0
    )
    if partial != 1.0:
        shrunk["partial_rotary_factor"] = partial
    else:
        shrunk.pop("partial_rotary_factor", None)
    if kind in ("llama3", "yarn"):
        shrunk["original_max_position_embeddings"] = ORIGINAL_POSITIONS
    if kind == "longrope":
        pairs = int(large.head_dim * partial) // 2
        shrunk["short_factor"] = [round(1 + 0.05 * index, 2) for index in range(pairs)]
        shrunk["long_factor"] = [round(2 + 0.2 * index, 1) for index in range(pairs)]
        shrunk["original_max_position_embeddings"] = POSITIONS
    return {key: value for key, value in sorted(shrunk.items()) if value is not None}
