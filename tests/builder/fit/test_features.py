"""What no proof can help is refused by the name of its key, before anything is imported or fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig
from typer.testing import CliRunner

from edgewright.errors import InputError
from edgewright_builder.cli.main import app
from edgewright_builder.fit.architecture import architecture_from_config
from edgewright_builder.fit.configuration.features import is_written_anew, longest_sequence
from edgewright_builder.fit.proof.tiny_config import POSITIONS, TOKENS, VOCABULARY, tiny_config
from tests.support.configurations import (
    GEMMA_3,
    LLAMA,
    ORIGINAL,
    PHI_3,
    QWEN_2,
    SUPPORTED,
    YARN,
    factors,
    rope,
)

ORIN = "jetson-orin-nano-8gb"
REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "rope": ({**LLAMA, **rope("spiral")}, "`rope_type: spiral` of this llama model is not supported"),
    "rope of phi3": ({**PHI_3, **rope("linear", factor=2.0)}, "`rope_type: linear` of this phi3 model"),
    "yarn without a factor": ({**LLAMA, **rope("yarn")}, "`rope_type: yarn` of config.json lacks `factor`"),
    "older spelling": ({**LLAMA, "rope_scaling": {"type": "linear"}}, "lacks `factor`"),
    "llama3": ({**LLAMA, **rope("llama3", factor=8.0)}, "lacks `low_freq_factor`"),
    "longrope": ({**LLAMA, **rope("longrope", short_factor=[1.0])}, "lacks `long_factor`"),
    "one of gemma's": (
        {**GEMMA_3, "rope_parameters": {"sliding_attention": {"rope_type": "spiral"}}}, "`rope_type: spiral`",
    ),
    "activation": ({**LLAMA, "hidden_act": "mish"}, "`hidden_act: mish` of config.json is not supported"),
    "activation of gemma": ({**GEMMA_3, "hidden_activation": "tanh"}, "`hidden_activation: tanh`"),
    "attention to both sides": (
        {**GEMMA_3, "use_bidirectional_attention": True}, "`use_bidirectional_attention` of config.json",
    ),
    "pictures' positions": (
        {**QWEN_2, **rope("default", mrope_section=[8, 4, 4])}, "`mrope_section` of config.json",
    ),
    "odd heads": ({**LLAMA, "head_dim": 33}, "`head_dim: 33` of config.json is odd"),
    "layers": ({**LLAMA, "layer_types": ["linear_attention"] * 3}, "linear_attention"),
    "windows of no size": (
        {**QWEN_2, "layer_types": ["sliding_attention"] * 3}, "layer_types has sliding_attention, and no",
    ),
    "layers without positions, of another number": (
        {**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 0]}, "3 layers, and no_rope_layers names 2",
    ),
    "a classifier": (
        {**LLAMA, "architectures": ["LlamaForSequenceClassification"]}, "names LlamaForSequenceClassification",
    ),
    "no head": ({**LLAMA, "architectures": ["LlamaModel"]}, "no head that writes tokens"),
    "factors": (
        {**LLAMA, **rope("longrope", short_factor=[1.0] * 3, long_factor=[1.0] * 16)},
        "`short_factor` of config.json has 3 factors, expected 16",
    ),
    "llama3's bounds": (
        {**LLAMA, **rope("llama3", factor=8.0, low_freq_factor=4.0, high_freq_factor=4.0)},
        "must be below `high_freq_factor`",
    ),
    "cohere": ({**LLAMA, "model_type": "cohere2"}, "Model type 'cohere2' is not supported"),
}  # fmt: skip


# One value of the wrong kind for each key that is read; transformers takes most of them, or fails deep inside.
IMPOSSIBLE: Mapping[str, Sequence[Any]] = {
    "hidden_size": [10**10], "head_dim": [0, "64", [64]], "num_key_value_heads": [0, "1", True],
    "sliding_window": [0, -1, "4096", 4096.5, True, []], "max_window_layers": [-1, "3", [1]],
    "sliding_window_pattern": [0, "6"], "no_rope_layer_interval": [0, "a"], "no_rope_layers": ["abc", 0, [2, 1, 1]],
    "rope_theta": ["1e6", 0, math.nan], "partial_rotary_factor": ["0.5", -1, 2], "tie_word_embeddings": ["false"],
    "attention_bias": ["yes"], "hidden_act": [["silu"]], "rope_scaling": ["linear", ["linear", 2.0]],
    "layer_types": ["full_attention", [1, 1, 1], [["full_attention"]] * 3], "attn_logit_softcapping": [0, "50"],
    "logits_scaling": [0, "8"], "query_pre_attn_scalar": [0], "rms_norm_eps": ["1e-5", -1e-5],
}  # fmt: skip
IMPOSSIBLE_POSITIONS: Mapping[str, Sequence[Any]] = {
    "rope_type": [["linear"]], "factor": ["8", 0, -2, True, [], {}, math.nan, math.inf], "attention_factor": [-1],
    "beta_fast": ["32"], "original_max_position_embeddings": ["128", 0], "short_factor": ["abc", [1.0, "2"]],
    "truncate": ["yes"],
}  # fmt: skip


@pytest.mark.parametrize("key", IMPOSSIBLE)
def test_a_value_of_the_wrong_kind_is_named_with_what_is_expected(key: str) -> None:
    for value in IMPOSSIBLE[key]:
        with pytest.raises(InputError, match=f"`{key}: .*` of config.json is impossible: expected "):
            architecture_from_config({**LLAMA, key: value})


@pytest.mark.parametrize("key", IMPOSSIBLE_POSITIONS)
def test_a_wrong_value_among_the_positions_is_named_too(key: str) -> None:
    for value in IMPOSSIBLE_POSITIONS[key]:
        with pytest.raises(InputError, match=f"`{key}: .*` among the positions of config.json is impossible"):
            architecture_from_config({**LLAMA, "rope_scaling": {**YARN["rope_parameters"], key: value}})


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000])
def test_a_file_that_is_nested_without_end_is_not_readable(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(tmp_path), "--device", ORIN])
    assert isinstance(result.exception, InputError)
    assert "is not readable as JSON" in str(result.exception)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("queries", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("head_dim", [8, 16, 24, 32, 48, 64, 80, 96, 100, 128])
def test_a_tiny_configuration_is_one_that_transformers_takes(
    kv_heads: int, queries: int, head_dim: int
) -> None:
    heads = kv_heads * queries
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    tiny = tiny_config({**LLAMA, "hidden_size": 64 * heads, **shape})
    AutoConfig.for_model(**tiny)
    assert tiny["hidden_size"] % 32 == 0
    assert tiny["num_attention_heads"] * tiny.get("head_dim", 64) % 32 == 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_feature_that_is_unknown_is_refused_by_name_with_exit_code_2(name: str, tmp_path: Path) -> None:
    config, says = REFUSED[name]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(file), "--device", ORIN])
    assert isinstance(result.exception, InputError)
    assert says in str(result.exception)


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_tiny_model_is_tiny_and_accepted(name: str) -> None:
    tiny = tiny_config(SUPPORTED[name])
    facts = architecture_from_config(tiny)
    assert facts.parameters < 5e6
    assert facts.max_context_tokens == POSITIONS > TOKENS
    widths = (
        facts.hidden_size, facts.intermediate_size, facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim,
        (facts.heads + 2 * facts.kv_heads) * facts.head_dim, 2 * facts.intermediate_size,
    )  # fmt: skip
    assert VOCABULARY not in widths  # or the exporter would take such a projection for the output head
    assert tiny_config(tiny) == tiny


def test_the_same_computation_has_one_tiny_configuration_however_it_is_spelled() -> None:
    older = {**LLAMA, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}, "head_dim": 32}
    newer = {
        **LLAMA,
        "head_dim": None,
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        **rope("linear", factor=4.0),
    }
    assert tiny_config(older) == tiny_config(newer)


def test_limits_are_shrunk_so_that_the_sequence_passes_them() -> None:
    tiny = tiny_config(
        {**QWEN_2, **YARN, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    )
    assert tiny["sliding_window"] < TOKENS
    assert tiny["rope_parameters"]["original_max_position_embeddings"] < TOKENS
    assert tiny["layer_types"] == ["full_attention", "sliding_attention"] * 2


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (SUPPORTED["phi3, longrope"], ORIGINAL),
        (SUPPORTED["llama, longrope"], ORIGINAL),
        (SUPPORTED["llama, yarn"], 512),
        (SUPPORTED["llama, dynamic"], 512),
        (
            {
                **PHI_3,
                "max_position_embeddings": 131_072,
                "rope_scaling": {"type": "longrope", **factors(16)},
            },
            4096,
        ),
    ],
)
def test_a_sequence_is_no_longer_than_its_positions_are_computed_one_way(
    config: Mapping[str, Any], longest: int
) -> None:
    assert longest_sequence(config["model_type"], config)[0] == longest
    assert architecture_from_config(config).max_context_tokens == longest


def test_an_export_depends_on_the_context_only_where_edgewright_writes_tables_or_windows() -> None:
    plain = (
        "llama",
        "llama, all biases, untied",
        "mistral",
        "qwen2",
        "qwen3",
        "granite",
        "llama, heads of 192",
    )
    assert not any(is_written_anew(SUPPORTED[name]) for name in plain)
    anew = (
        "llama, linear", "llama, llama3", "llama, heads of 100", "mistral, windows", "smollm3", "gemma",
        "gemma3, pictures beside", "phi3, three quarters turned", "qwen2, windows in the last layers",
    )  # fmt: skip
    assert all(is_written_anew(SUPPORTED[name]) for name in anew)


def test_a_context_beyond_that_is_refused_with_the_reason() -> None:
    arguments = ["check", "phi-3.5-mini", "--device", ORIN, "--context", "8192"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert "the model's maximum is 4096 (`rope_type: longrope` turns longer sequences in another way)" in str(
        result.exception
    )
