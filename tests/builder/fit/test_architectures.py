"""Sizes from config.json alone are those of the model that transformers builds from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from edgewright.errors import InputError
from edgewright_builder.fit.architecture import architecture_from_config
from edgewright_builder.fit.configuration.families import FAMILIES, UNSUPPORTED

SHAPE = {
    "num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 160, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"head_dim": 32},
    {"attention_bias": True},
    {"mlp_bias": True},
]
# Keys that a family's own code does not know: config.json never has them there.
WITHOUT = {
    "mistral": {"attention_bias", "mlp_bias"}, "qwen2": {"attention_bias", "mlp_bias", "head_dim"},
    "qwen3": {"mlp_bias"}, "gemma": {"mlp_bias"}, "gemma2": {"mlp_bias"}, "gemma3_text": {"mlp_bias"},
    "phi3": {"attention_bias", "mlp_bias", "head_dim"}, "olmo2": {"mlp_bias"}, "olmo3": {"mlp_bias"},
}  # fmt: skip
TEXT_FAMILIES = sorted(set(FAMILIES) - {"gemma3"})


def config_of(family: str, **changes: Any) -> dict[str, Any]:
    return {"model_type": family, **SHAPE, **changes}


def built(config: dict[str, Any]) -> Any:
    """The model that transformers makes of it, without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager")


# What decides where windows are, in the ways that only some families read; transformers is asked which.
WINDOWS: list[dict[str, Any]] = [
    {"max_window_layers": 0},
    {"max_window_layers": 4},
    {"sliding_window_pattern": 3},
    {"layer_types": ["full_attention", "sliding_attention"] * 3},
]


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize(
    "change", WINDOWS, ids=lambda change: next(iter(change)) + str(next(iter(change.values())))
)
def test_windows_are_where_the_family_reads_them(family: str, change: dict[str, Any]) -> None:
    config = config_of(family, sliding_window=128, use_sliding_window=True, **change)
    theirs, kind = AutoConfig.for_model(**config), FAMILIES[family].windows
    windowed = 6 if kind == "all" else 0
    if kind not in ("never", "all"):
        windowed = theirs.layer_types.count("sliding_attention")
    assert architecture_from_config(config).windowed_layers == windowed


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_biases_that_a_family_does_not_read_are_not_counted(family: str) -> None:
    for key in ("attention_bias", "mlp_bias"):
        config = config_of(family, **{key: True})
        assert architecture_from_config(config).parameters == built(config).num_parameters(), key


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("change", VARIANTS, ids=lambda change: "-".join(change) or "plain")
def test_the_parameters_are_those_transformers_counts(family: str, change: dict[str, Any]) -> None:
    if WITHOUT.get(family, set()) & set(change):
        return
    config = config_of(family, **change)
    model = built(config)
    assert architecture_from_config(config).parameters == model.num_parameters()


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_what_config_json_leaves_out_of_positions_and_norms_is_transformers_default(family: str) -> None:
    theirs = AutoConfig.for_model(**config_of(family))
    positions = theirs.rope_parameters.get("full_attention", theirs.rope_parameters)
    assert FAMILIES[family].rope_theta == positions["rope_theta"]
    assert FAMILIES[family].norm_epsilon == theirs.rms_norm_eps


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_the_windowed_layers_are_those_transformers_makes(family: str) -> None:
    asked = {"use_sliding_window": True, "max_window_layers": 2} if family.startswith("qwen") else {}
    config = config_of(family, sliding_window=128, **asked)
    ours, theirs = architecture_from_config(config), AutoConfig.for_model(**config)
    types = getattr(theirs, "layer_types", None)
    windowed = (
        sum(kind == "sliding_attention" for kind in types)
        if types is not None
        else 6 * (FAMILIES[family].windows == "all")
    )
    assert ours.windowed_layers == windowed
    full = 6 - windowed
    assert ours.kv_elements(512) == 2 * ours.kv_heads * ours.head_dim * (full * 512 + windowed * 128)
    assert ours.kv_elements(64) == 2 * ours.kv_heads * ours.head_dim * 6 * 64


def test_only_the_text_decoder_of_a_model_with_images_counts() -> None:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    found = architecture_from_config({"model_type": "gemma3", "text_config": text, "vision_config": {}})
    assert (
        found.parameters == 3_880_263_168
    )  # gemma-3-4b: the hub's count less its vision tower and projector
    assert (found.heads, found.vocab_size, found.max_context_tokens) == (8, 262_208, 131_072)


@pytest.mark.parametrize("family", sorted(UNSUPPORTED))
def test_an_unsupported_family_is_named_with_the_reason(family: str) -> None:
    with pytest.raises(InputError, match=f"'{family}' is not supported: it"):
        architecture_from_config(config_of(family))


def test_layer_types_that_contradict_the_depth_or_are_unknown_are_refused() -> None:
    with pytest.raises(InputError, match="6 layers, and layer_types names 2"):
        architecture_from_config(config_of("qwen3", layer_types=["full_attention"] * 2))
    with pytest.raises(InputError, match="linear_attention are not supported"):
        architecture_from_config(config_of("qwen3", layer_types=["linear_attention"] * 6))
