"""Families of decoders: what their `config.json` leaves unsaid and their weights follow from.

Source of every entry: the configuration and modeling file of that model type in transformers 5 (`models/TYPE/`);
a test builds each on the meta device and compares the number of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Which layers see only a window: by `use_sliding_window` and `max_window_layers`, all, all but each nth, or with
# `use_sliding_window` those without positions.
Windows = Literal["never", "asked", "all", "pattern", "without_positions"]


@dataclass(frozen=True)
class Family:
    """How one model type differs from Llama."""

    norms_per_layer: int = 2
    query_key_norm: Literal["none", "head", "projection"] = "none"  # over a head, or over all heads at once
    query_key_value_bias: bool = False  # always there, whatever `attention_bias` says
    bias_keys: tuple[str, ...] = ()  # of config.json that it reads; others change nothing
    tied_by_default: bool = False
    head_dim: int | None = None  # where config.json names none; None: hidden size / heads
    windows: Windows = "never"
    full_attention_every: int = 1  # with `pattern`: each nth layer sees everything
    full_attention_key: str = ""  # of config.json, which may state another number; "": none does
    default_window: int | None = None
    defaults: Mapping[str, int] = field(default_factory=dict)  # what config.json may leave out
    activation: str = "silu"  # where config.json names none
    rope_theta: float = 10_000.0  # likewise; of the layers that see everything
    norm_epsilon: float = 1e-6  # likewise
    activation_key: Literal["hidden_act", "hidden_activation"] = "hidden_act"


_GELU = "gelu_pytorch_tanh"
_ATTENTION = ("attention_bias",)
_BOTH = ("attention_bias", "mlp_bias")
_GEMMA_3 = Family(
    norms_per_layer=4, query_key_norm="head", bias_keys=_ATTENTION, tied_by_default=True, head_dim=256,
    windows="pattern",
    full_attention_every=6, full_attention_key="sliding_window_pattern", default_window=4096,
    defaults={
        "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
    },
    activation=_GELU, activation_key="hidden_activation", rope_theta=1_000_000.0,
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    "llama": Family(bias_keys=_BOTH),
    "mistral": Family(windows="all", default_window=4096),
    "qwen2": Family(query_key_value_bias=True, windows="asked"),
    "qwen3": Family(query_key_norm="head", bias_keys=_ATTENTION, head_dim=128, windows="asked"),
    "smollm3": Family(
        bias_keys=_BOTH, tied_by_default=True, windows="without_positions", rope_theta=2_000_000.0
    ),
    "gemma": Family(bias_keys=_ATTENTION, tied_by_default=True, head_dim=256, activation=_GELU),
    "gemma2": Family(
        norms_per_layer=4, bias_keys=_ATTENTION, tied_by_default=True, head_dim=256, windows="pattern",
        full_attention_every=2, default_window=4096, activation=_GELU, activation_key="hidden_activation",
    ),
    "gemma3_text": _GEMMA_3,
    "gemma3": _GEMMA_3,  # text and images; only the text decoder, under `text_config`, is deployed
    "phi3": Family(windows="all", norm_epsilon=1e-5),
    "olmo2": Family(query_key_norm="projection", bias_keys=_ATTENTION, norm_epsilon=1e-5),
    "olmo3": Family(
        query_key_norm="projection", bias_keys=_ATTENTION, windows="pattern", full_attention_every=4,
        default_window=4096, rope_theta=500_000.0, norm_epsilon=1e-5,
    ),
    "granite": Family(bias_keys=_BOTH),
}  # fmt: skip

_EXPERTS = "it is a mixture of experts, and which experts a board must hold is not modelled"
_RECURRENT = "it mixes attention with recurrent layers, whose state is not modelled"
UNSUPPORTED: Mapping[str, str] = {
    "mixtral": _EXPERTS, "qwen2_moe": _EXPERTS, "qwen3_moe": _EXPERTS, "olmoe": _EXPERTS, "phimoe": _EXPERTS,
    "gpt_oss": _EXPERTS, "granitemoe": _EXPERTS, "llama4": _EXPERTS, "llama4_text": _EXPERTS,
    "deepseek_v2": _EXPERTS, "deepseek_v3": _EXPERTS, "lfm2_moe": _EXPERTS,
    "mamba": _RECURRENT, "mamba2": _RECURRENT, "lfm2": _RECURRENT, "qwen3_next": _RECURRENT,
    "qwen3_5": _RECURRENT, "qwen3_5_text": _RECURRENT, "granitemoehybrid": _RECURRENT, "falcon_h1": _RECURRENT,
    "gemma3n": "its layers share caches and per-layer embeddings, which are not modelled",
    "t5": "it is an encoder and a decoder, not a decoder alone",
    "bert": "it is an encoder, which generates nothing",
}  # fmt: skip


def windowed_layers(family: Family, config: Mapping[str, Any], layers: int) -> list[bool]:
    """Returns, layer by layer, whether it sees only `sliding_window` tokens."""
    if window_of(family, config) is None:
        return [False] * layers
    if family.windows == "all":  # whatever `layer_types` says: transformers does not read it there
        return [True] * layers
    types = config.get("layer_types")
    if isinstance(types, list):
        return [kind == "sliding_attention" for kind in types]
    if family.windows == "asked":
        first = config.get("max_window_layers")
        return [index >= (28 if first is None else int(first)) for index in range(layers)]
    if family.windows == "pattern":
        every = int(config.get(family.full_attention_key) or family.full_attention_every)
        return [(index + 1) % every != 0 for index in range(layers)]
    return [not positions for positions in layers_with_positions(config, layers)]


def layers_with_positions(config: Mapping[str, Any], layers: int) -> list[bool]:
    """Returns, layer by layer, whether SmolLM3 turns its queries and keys by their positions."""
    listed = config.get("no_rope_layers")
    if isinstance(listed, list):
        return [bool(positions) for positions in listed]
    interval = int(config.get("no_rope_layer_interval") or 4)
    return [(index + 1) % interval != 0 for index in range(layers)]


def window_of(family: Family, config: Mapping[str, Any]) -> int | None:
    """Tokens a windowed layer sees; None where no layer is windowed."""
    if family.windows == "never":
        return None
    if family.windows in ("asked", "without_positions") and not config.get("use_sliding_window"):
        return None
    window = config.get("sliding_window", family.default_window)
    return None if window is None else int(window)


def decoder_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the part of config.json that describes the text decoder."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config
