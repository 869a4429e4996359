"""What the export knows of a configuration is what transformers makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright_builder.export.decoder import (
    SHARED_ROPE,
    Decoder,
    LayerAttention,
    decoder_of,
    told_to_exporter,
)

SHAPE = {
    "vocab_size": 263, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 512,
}  # fmt: skip


def config_of(model_type: str, layers: int = 4, **fields: Any) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type](**{**SHAPE, "num_hidden_layers": layers, **fields})


def decoder(model_type: str, layers: int = 4, **fields: Any) -> Decoder:
    return decoder_of(config_of(model_type, layers, **fields), SHAPE["head_dim"], 1.0)


def windows(found: Decoder) -> list[int | None]:
    return [layer.window_tokens for layer in found.layers]


def test_a_window_is_in_the_layers_where_transformers_has_it() -> None:
    assert windows(decoder("mistral", sliding_window=64)) == [64] * 4
    assert windows(decoder("phi3", sliding_window=64)) == [64] * 4
    assert windows(decoder("llama", sliding_window=64)) == [None] * 4  # which Llama has no use for
    asked = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 3}
    assert windows(decoder("qwen2", **asked)) == [None, None, None, 64]
    assert windows(decoder("qwen2", **{**asked, "use_sliding_window": False})) == [None] * 4
    assert windows(decoder("gemma2", sliding_window=64)) == [64, None, 64, None]
    assert windows(decoder("gemma3_text", 6, sliding_window=64)) == [64] * 5 + [None]


def test_keys_that_transformers_does_not_read_open_no_window() -> None:
    kinds = ["full_attention", "sliding_attention"] * 2
    assert windows(decoder("llama", sliding_window=64, layer_types=kinds)) == [None] * 4
    assert windows(decoder("mistral", sliding_window=64, layer_types=kinds)) == [64] * 4
    assert windows(decoder("gemma2", sliding_window=64, sliding_window_pattern=4)) == [64, None, 64, None]


def test_a_window_wider_than_any_sequence_is_none() -> None:
    found = decoder("mistral", sliding_window=512)
    assert windows(found) == [None] * 4
    assert found.plain


def test_layers_of_smollm3_are_without_positions_where_it_says_so() -> None:
    ropes = [layer.rope for layer in decoder("smollm3").layers]
    assert ropes == [SHARED_ROPE, SHARED_ROPE, SHARED_ROPE, None]


def test_gemma_3_has_frequencies_for_each_kind_of_layer() -> None:
    found = decoder("gemma3_text", 6, sliding_window=64)
    assert found.layers[0] == LayerAttention(64, "sliding_attention")
    assert found.layers[5] == LayerAttention(None, "full_attention")


def test_what_gptqmodel_leaves_beside_gemma_3_s_frequencies_is_no_kind_of_layer() -> None:
    config = config_of("gemma3_text", 6, sliding_window=64)
    plain = decoder_of(config, SHAPE["head_dim"], 1.0)
    config.rope_parameters |= {"rope_type": "default", "rope_theta": {"global": 1e6, "local": 1e4}}
    assert decoder_of(config, SHAPE["head_dim"], 1.0) == plain
    assert told_to_exporter(config, plain).rope_parameters["rope_theta"] == 1e6


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, 512),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        (
            {"rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16, "factor": 4.0,
             "original_max_position_embeddings": 128}, 128,
        ),
    ],
)  # fmt: skip
def test_a_sequence_is_no_longer_than_one_set_of_frequencies_serves(
    fields: dict[str, Any], limit: int
) -> None:
    found = decoder("llama", rope_parameters={"rope_theta": 1e4, **fields})
    assert found.context_tokens == limit
    assert not found.plain


def test_a_plain_model_is_exported_as_it_is() -> None:
    config = config_of("llama")
    found = decoder_of(config, SHAPE["head_dim"], 1.0)
    assert found.plain
    assert told_to_exporter(config, found).to_dict() == config.to_dict()


def test_what_transformers_ignores_is_not_told_to_the_exporter() -> None:
    config = config_of("llama", final_logit_softcapping=3.0, num_experts=8)
    told = told_to_exporter(config, decoder_of(config, SHAPE["head_dim"], 1.0))
    assert not hasattr(told, "final_logit_softcapping")
    assert not hasattr(told, "num_experts")
