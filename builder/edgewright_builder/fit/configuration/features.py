"""What a configuration asks of attention beyond plain Llama, by the names of its keys; and what is refused by name.

Every feature that is let through is written into the graph by `export` and proved by `parity`. Sources: transformers 5,
`modeling_rope_utils.py` for the kinds of positions and the keys they need, and the configuration of each model type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.fit.configuration.families import FAMILIES, decoder_config, window_of
from edgewright_builder.fit.configuration.values import check_factor_lists, check_position_values

# Kinds of positions, with the keys without which transformers can't compute them.
ROPE_KEYS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "proportional": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
}
LAYER_KINDS = ("full_attention", "sliding_attention")
PHI_3_ROPES = ("default", "longrope")  # all that its configuration takes
PHI_3_LONGROPE = ("longrope", "su", "yarn")  # what its older files call it
# onnxruntime-genai 0.18.0, `make_activation` of models/builders/base.py, as far as transformers has them too.
ACTIVATIONS = (
    "silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "relu2",
)  # fmt: skip


def require_known_features(model_type: str, facts: Mapping[str, Any]) -> None:
    """Raises InputError naming the first key of a decoder's configuration that asks for something unknown."""
    for parameters in rope_parameters(facts):
        check_position_values(parameters)
        _require_known_rope(model_type, parameters)
        if rope_type(model_type, parameters) == "longrope":
            check_factor_lists(parameters, _head_dim(model_type, facts), _partial(facts, parameters))
    key = FAMILIES[model_type].activation_key
    activation = facts.get(key)
    if activation is not None and activation not in ACTIVATIONS:
        raise InputError(
            f"`{key}: {activation}` of config.json is not supported; supported are {', '.join(ACTIVATIONS)}."
        )
    if (facts.get("head_dim") or 0) % 2:
        raise InputError(
            f"`head_dim: {facts['head_dim']}` of config.json is odd: positions turn elements of a head in pairs."
        )
    if facts.get("use_bidirectional_attention"):
        raise InputError(
            "`use_bidirectional_attention` of config.json is not supported: such a model embeds text, it writes none."
        )


def rope_parameters(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the parameters of each set of frequencies: one for the model, or one for each kind of layer."""
    parameters = facts.get("rope_scaling") or facts.get("rope_parameters")
    if not isinstance(parameters, Mapping):
        return [{}]
    return rope_sets(parameters)


def rope_sets(parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns what `rope_parameters` holds: one set of frequencies, or one for each kind of layer."""
    return list(ropes_by_layer_kind(parameters).values()) or [parameters]


def ropes_by_layer_kind(parameters: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the set of frequencies of each kind of layer; empty where all layers share one.

    Other keys beside them are ignored, as transformers does: GPTQModel 7.6.0 leaves a mapping `rope_theta` there.
    """
    return {kind: parameters[kind] for kind in LAYER_KINDS if isinstance(parameters.get(kind), Mapping)}


def rope_type(model_type: str, parameters: Mapping[str, Any]) -> str:
    """Returns the kind of positions, as transformers names it today."""
    kind = str(parameters.get("rope_type") or parameters.get("type") or "default")
    return "longrope" if model_type == "phi3" and kind in PHI_3_LONGROPE else kind


def is_written_anew(config: Mapping[str, Any]) -> bool:
    """Whether an export may hold tables of positions or windows of Edgewright's own, which depend on the context."""
    facts = decoder_config(config)
    model_type = str(facts.get("model_type") or config["model_type"])
    family, sets = FAMILIES[model_type], rope_parameters(facts)
    plain_positions = len(sets) == 1 and rope_type(model_type, sets[0]) == "default"
    return (
        not plain_positions or _partial(facts, sets[0]) != 1.0 or _head_dim(model_type, facts) % 16 != 0
        or window_of(family, facts) is not None
        or family.windows == "without_positions" or model_type.startswith("gemma")
    )  # fmt: skip


def longest_sequence(model_type: str, facts: Mapping[str, Any]) -> tuple[int, str]:
    """Returns the tokens that one set of frequencies serves, and what sets that limit.

    With LongRoPE transformers turns every position of a longer sequence in another way, also those already in the KV
    cache, which no engine here does.
    """
    maximum = int(facts["max_position_embeddings"])
    limits = [
        original_maximum(model_type, facts, parameters)
        for parameters in rope_parameters(facts)
        if rope_type(model_type, parameters) == "longrope"
    ]
    shortest = min([maximum, *limits])
    return (
        shortest,
        "" if shortest == maximum else "`rope_type: longrope` turns longer sequences in another way",
    )


def _head_dim(model_type: str, facts: Mapping[str, Any]) -> int:
    stated = facts.get("head_dim") or FAMILIES[model_type].head_dim
    return int(stated or facts["hidden_size"] // facts["num_attention_heads"])


def _partial(facts: Mapping[str, Any], parameters: Mapping[str, Any]) -> float:
    """Returns the share of a head's elements that positions turn."""
    return float(parameters.get("partial_rotary_factor") or facts.get("partial_rotary_factor") or 1.0)


def original_maximum(model_type: str, facts: Mapping[str, Any], parameters: Mapping[str, Any]) -> int:
    """Returns the positions that a model was trained with before they were scaled.

    As in transformers, the key beside the parameters goes before the one among them.
    """
    default = 4096 if model_type == "phi3" else facts["max_position_embeddings"]
    outer = facts.get("original_max_position_embeddings")
    return int(outer or parameters.get("original_max_position_embeddings") or default)


def _require_known_rope(model_type: str, parameters: Mapping[str, Any]) -> None:
    kind = rope_type(model_type, parameters)
    supported = PHI_3_ROPES if model_type == "phi3" else tuple(ROPE_KEYS)
    if kind not in supported:
        raise InputError(
            f"`rope_type: {kind}` of this {model_type} model is not supported; supported are {', '.join(supported)}."
        )
    if missing := [key for key in ROPE_KEYS[kind] if parameters.get(key) is None]:
        raise InputError(
            f"`rope_type: {kind}` of config.json lacks `{missing[0]}`, without which it means nothing."
        )
    if parameters.get("mrope_section") is not None:
        raise InputError(
            "`mrope_section` of config.json is not supported: it places pictures, and text is served."
        )
