"""The facts of a model that its memory follows from, read from config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.fit.configuration.families import (
    FAMILIES,
    UNSUPPORTED,
    Family,
    decoder_config,
    window_of,
    windowed_layers,
)
from edgewright_builder.fit.configuration.features import (
    LAYER_KINDS,
    longest_sequence,
    require_known_features,
)
from edgewright_builder.fit.configuration.values import check_decoder_values, is_positive

SUPPORTED_TYPES = tuple(FAMILIES)
WRITERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")  # how transformers' classes end
GROUP_SIZES = (128, 64, 32)
_, WINDOWED = LAYER_KINDS
LAYERS_MAX = 1000  # the deepest known have 126; a damaged file may name billions
NEEDED = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A decoder with grouped-query attention and a gated MLP."""

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    max_context_tokens: int  # of one sequence, prompt and answer
    norm_parameters_per_layer: int
    bias_parameters_per_layer: int = 0
    sliding_window: int | None = None  # tokens that a windowed layer sees
    windowed_layers: int = 0
    context_limited_by: str = (
        ""  # why a sequence is no longer than that, where it is not the configuration's maximum
    )

    @property
    def linear_parameters(self) -> int:
        """Weights of the attention and MLP projections, the ones GPTQ quantizes."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden_size * (2 * query + 2 * key_value)
        return self.layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def embedding_parameters(self) -> int:
        """Weights of one embedding matrix; an untied head is a second one."""
        return self.vocab_size * self.hidden_size

    @property
    def norm_parameters(self) -> int:
        """What stays in floats: the normalizations, the last one too, and the projections' biases."""
        per_layer = self.norm_parameters_per_layer + self.bias_parameters_per_layer
        return self.layers * per_layer + self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights, a tied embedding counted once."""
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return self.linear_parameters + embeddings + self.norm_parameters

    @property
    def bf16_bytes(self) -> int:
        """Size of the unquantized model at 16 bits."""
        return 2 * self.parameters

    def kv_elements(self, context_tokens: int) -> int:
        """Keys and values of one sequence; a windowed layer keeps no more than its window."""
        windowed = 0 if self.sliding_window is None else self.windowed_layers
        tokens = (self.layers - windowed) * context_tokens
        if self.sliding_window is not None:
            tokens += windowed * min(context_tokens, self.sliding_window)
        return 2 * self.kv_heads * self.head_dim * tokens

    def projection_shape(self, module: str) -> tuple[int, int]:
        """Returns (inputs, outputs) of a projection, which every layer has, by its name in checkpoints."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        inputs = {"o_proj": query, "down_proj": self.intermediate_size}.get(module, self.hidden_size)
        outputs = {
            "q_proj": query, "k_proj": key_value, "v_proj": key_value, "gate_proj": self.intermediate_size,
            "up_proj": self.intermediate_size,
        }.get(module, self.hidden_size)  # fmt: skip
        return inputs, outputs

    def with_layers(self, layers: int) -> Architecture:
        """The same model, less deep. Which layers go is not known here, so windowed ones are taken to go first."""
        if layers == self.layers:
            return self
        full = min(layers, self.layers - self.windowed_layers)
        return replace(self, layers=layers, windowed_layers=layers - full if self.windowed_layers else 0)

    def group_sizes(self) -> tuple[int, ...]:
        """Those of 128, 64, 32 that divide the input dimension of every linear layer, largest first.

        Raises InputError where none does: padding would change what is measured.
        """
        inputs = (self.hidden_size, self.heads * self.head_dim, self.intermediate_size)
        sizes = tuple(size for size in GROUP_SIZES if all(dimension % size == 0 for dimension in inputs))
        if not sizes:
            raise InputError(
                f"No group size of {GROUP_SIZES} divides this model's input dimensions {inputs}."
            )
        return sizes

    def largest_group_size(self) -> int:
        """The first of `group_sizes`."""
        return self.group_sizes()[0]


def architecture_from_config(config: Mapping[str, Any]) -> Architecture:
    """Reads `config.json`; raises InputError naming what is unsupported, missing or contradictory."""
    model_type = _supported_type(config)
    _require_writer(config)
    family = FAMILIES[model_type]
    facts = _decoder_facts(model_type, config)
    heads, hidden_size, layers = (
        facts[key] for key in ("num_attention_heads", "hidden_size", "num_hidden_layers")
    )
    kv_heads, head_dim = _attention_shape(family, facts)
    _check_layers(family, facts, layers)
    require_known_features(model_type, facts)
    max_context_tokens, limited_by = longest_sequence(model_type, facts)
    return Architecture(
        model_type=model_type,
        layers=layers,
        hidden_size=hidden_size,
        intermediate_size=facts["intermediate_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=facts["vocab_size"],
        tied_embeddings=_are_tied(family, facts),
        max_context_tokens=max_context_tokens,
        norm_parameters_per_layer=family.norms_per_layer * hidden_size
        + _query_key_norm(family, heads, kv_heads, head_dim),
        bias_parameters_per_layer=_biases(family, facts, kv_heads, head_dim),
        sliding_window=window_of(family, facts),
        windowed_layers=sum(windowed_layers(family, facts, layers)),
        context_limited_by=limited_by,
    )


def _decoder_facts(model_type: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what config.json and the family say of the decoder, every value within its bounds."""
    facts = {**FAMILIES[model_type].defaults, **decoder_config(config)}
    if missing := [key for key in NEEDED if not is_positive(facts.get(key))]:
        raise InputError(f"config.json of this {model_type} model lacks a positive {', '.join(missing)}.")
    facts.setdefault("tie_word_embeddings", config.get("tie_word_embeddings"))
    check_decoder_values(facts)
    if (layers := facts["num_hidden_layers"]) > LAYERS_MAX:
        raise InputError(
            f"num_hidden_layers of this {model_type} model is {layers}, expected {LAYERS_MAX} at most; its file is "
            "damaged."
        )
    return facts


def _are_tied(family: Family, facts: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding."""
    tied = facts["tie_word_embeddings"]
    return family.tied_by_default if tied is None else bool(tied)


def _require_writer(config: Mapping[str, Any]) -> None:
    """Raises InputError for weights that classify or embed: a head that writes tokens is not among them."""
    named = config.get("architectures")
    names = [str(name) for name in named] if isinstance(named, list) else []
    if names and not any(name.endswith(WRITERS) for name in names):
        raise InputError(
            f"`architectures` of config.json names {', '.join(names)}, expected one that ends in {WRITERS[0]}: such "
            "weights have no head that writes tokens."
        )


def _supported_type(config: Mapping[str, Any]) -> str:
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES:
        return model_type
    if isinstance(model_type, str) and model_type in UNSUPPORTED:
        raise InputError(f"Model type {model_type!r} is not supported: {UNSUPPORTED[model_type]}.")
    fields = [key for key in ("model_type", *NEEDED) if key not in config]
    lacks = f" Its config.json also lacks {', '.join(fields)}." if fields else ""
    supported = ", ".join(SUPPORTED_TYPES)
    raise InputError(f"Model type {model_type!r} is not supported; supported are {supported}.{lacks}")


def _attention_shape(family: Family, facts: Mapping[str, Any]) -> tuple[int, int]:
    """(KV heads, elements of a head)."""
    heads, hidden_size = facts["num_attention_heads"], facts["hidden_size"]
    kv_heads = facts.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise InputError(
            f"config.json is contradictory: {heads} attention heads are no multiple of {kv_heads} KV heads."
        )
    head_dim = facts.get("head_dim") or family.head_dim
    if head_dim is None and hidden_size % heads:
        raise InputError(
            f"config.json is contradictory: hidden size {hidden_size} is no multiple of {heads} heads."
        )
    return kv_heads, head_dim or hidden_size // heads


def _check_layers(family: Family, facts: Mapping[str, Any], layers: int) -> None:
    """Raises InputError for lists of another length than the layers, for unknown kinds, and for windows of no size."""
    for key in ("layer_types", "no_rope_layers"):
        listed = facts.get(key)
        if listed is not None and len(listed) != layers:
            raise InputError(
                f"config.json is contradictory: {layers} layers, and {key} names {len(listed)} of them."
            )
    kinds = set(facts.get("layer_types") or ())
    if unknown := kinds - set(LAYER_KINDS):
        raise InputError(
            f"Layers of type {', '.join(sorted(unknown))} are not supported; {' and '.join(LAYER_KINDS)} are."
        )
    if WINDOWED in kinds and family.windows not in ("never", "all") and window_of(family, facts) is None:
        raise InputError(
            f"config.json is contradictory: layer_types has {WINDOWED}, and no `sliding_window` is in use."
        )


def _query_key_norm(family: Family, heads: int, kv_heads: int, head_dim: int) -> int:
    if family.query_key_norm == "head":
        return 2 * head_dim
    return (heads + kv_heads) * head_dim if family.query_key_norm == "projection" else 0


def _biases(family: Family, facts: Mapping[str, Any], kv_heads: int, head_dim: int) -> int:
    """Bias elements of a layer: q, k, v, and with `attention_bias` o; with `mlp_bias` gate, up, down."""
    keys = {key for key in family.bias_keys if facts.get(key)}
    hidden_size, asked = facts["hidden_size"], "attention_bias" in keys
    biases = (facts["num_attention_heads"] + 2 * kv_heads) * head_dim
    attention = biases * (asked or family.query_key_value_bias) + hidden_size * asked
    mlp = (2 * facts["intermediate_size"] + hidden_size) if "mlp_bias" in keys else 0
    return int(attention + mlp)
