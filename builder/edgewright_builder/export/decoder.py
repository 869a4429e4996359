"""What transformers computes for a configuration, layer by layer, and what the exporter is told of it.

The exporter drops or misreads windows, position scaling, layers without positions and some head sizes. So it is told
of a model without any of them, and `graph_edits` writes them into the graph. A model that has none of them is
exported as it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewright_builder.fit.configuration.families import FAMILIES
from edgewright_builder.fit.configuration.features import rope_sets, ropes_by_layer_kind

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SHARED_ROPE = ""  # the name of the frequencies where all layers have the same
TOLD_POSITIONS = 16  # the fewest of which the exporter makes a table; ours takes its place
# What the exporter reads from any config.json, and transformers only where the model type declares it.
READ_BY_THE_EXPORTER = (
    "attn_logit_softcapping", "final_logit_softcapping", "hidden_activation", "seq_length", "ffn_hidden_size",
    "moe_intermediate_size", "num_local_experts", "num_experts", "multi_query_group_num", "rope_position_scale",
    "rope_embedding_base", "original_max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class LayerAttention:
    """How one layer attends."""

    window_tokens: int | None  # it sees so many tokens, its own among them; None: all before it
    rope: str | None  # the frequencies that turn queries and keys; None: it has no positions


@dataclass(frozen=True)
class Decoder:
    """The attention of all layers."""

    layers: tuple[LayerAttention, ...]
    heads: int
    kv_heads: int
    head_dim: int
    context_tokens: int  # the most that one set of frequencies serves
    rotary_dim: int  # elements of a head that positions turn
    plain: bool  # whether the exporter does all of it right by itself

    @property
    def ropes(self) -> tuple[str, ...]:
        """The sets of frequencies in use, in order."""
        return tuple(dict.fromkeys(layer.rope for layer in self.layers if layer.rope is not None))


def decoder_of(config: PretrainedConfig, rotary_dim: int, embedding_scale: float) -> Decoder:
    """Returns what transformers computes for `config`, whose positions turn `rotary_dim` elements of each head."""
    facts: Any = config
    head_dim = getattr(facts, "head_dim", None) or facts.hidden_size // facts.num_attention_heads
    context_tokens = context_of(facts)
    layers = tuple(
        LayerAttention(window if window is not None and window < context_tokens else None, rope)
        for window, rope in zip(_windows(facts), _ropes(facts), strict=True)
    )
    plain = (
        all(layer == LayerAttention(None, SHARED_ROPE) for layer in layers)
        and facts.rope_parameters.get("rope_type") == "default"
        and rotary_dim == head_dim
        and facts.rope_parameters.get("partial_rotary_factor", 1.0) == 1.0
        and head_dim % 16 == 0
        and embedding_scale == 1.0
    )
    return Decoder(
        layers, facts.num_attention_heads, facts.num_key_value_heads, head_dim, context_tokens, rotary_dim, plain
    )  # fmt: skip


def context_of(config: PretrainedConfig) -> int:
    """Returns the positions up to which transformers computes with one set of frequencies.

    LongRoPE has another set for sequences longer than the original maximum, dynamic NTK one for every length beyond
    `max_position_embeddings`.
    """
    facts: Any = config
    sets = rope_sets(facts.rope_parameters)
    limits = [each["original_max_position_embeddings"] for each in sets if each["rope_type"] == "longrope"]
    return int(min([facts.max_position_embeddings, *limits]))


def told_to_exporter(config: PretrainedConfig, decoder: Decoder) -> PretrainedConfig:
    """Returns the configuration that the exporter is given: plain attention, and nothing that transformers ignores."""
    plain = copy.deepcopy(config)
    for name in READ_BY_THE_EXPORTER:
        if hasattr(plain, name) and name not in type(plain).__dataclass_fields__:
            delattr(plain, name)
    if plain.model_type == "gemma3_text":
        plain.attn_logit_softcapping = None  # declared, and used by none of its layers
    if decoder.plain:
        return plain
    theta = rope_sets(plain.rope_parameters)[0].get("rope_theta", 10_000.0)
    plain.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    plain.rope_local_base_freq = theta  # which Gemma 3 is asked for
    plain.max_position_embeddings = plain.original_max_position_embeddings = TOLD_POSITIONS
    plain.sliding_window = None
    plain.layer_types = ["full_attention"] * plain.num_hidden_layers
    plain.no_rope_layers = [1] * plain.num_hidden_layers
    return plain


def _windows(config: Any) -> list[int | None]:
    """Tokens that each layer sees; None for all."""
    family, window = FAMILIES.get(config.model_type), getattr(config, "sliding_window", None)
    if family is None or family.windows == "never":  # transformers reads none of the keys
        return [None] * config.num_hidden_layers
    if family.windows == "all":
        return [window] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in config.layer_types]


def _ropes(config: Any) -> list[str | None]:
    """Returns which frequencies each layer uses; None for a layer without positions."""
    layers = config.num_hidden_layers
    if ropes_by_layer_kind(config.rope_parameters):
        return list(config.layer_types)
    with_positions = getattr(config, "no_rope_layers", None) or [1] * layers
    return [SHARED_ROPE if positions else None for positions in with_positions]
