"""What Q4_0 can't hold, or llama.cpp can't compute, is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgewright.errors import InputError
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.fit.configuration.llama_cpp import longest_for_llama_cpp, why_not_llama_cpp
from tests.support.configurations import LLAMA, SMOLLM_3, SUPPORTED, rope
from tests.support.gptq_checkpoints import FAMILIES, change_config, random_checkpoint


@pytest.mark.parametrize(
    ("setting", "named"),
    [({"desc_act": True}, "act-order"), ({"sym": False}, "asymmetric"), ({"bits": 8}, "8 bits"),
     ({"quant_method": "awq"}, "'awq'")],
)  # fmt: skip
def test_a_quantization_that_the_blocks_cannot_hold_is_named(
    setting: dict[str, Any], named: str, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    change_config(checkpoint, **setting)
    with pytest.raises(InputError, match=named):
        write_gguf(checkpoint, 8, tmp_path / "model.gguf", "tiny")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("g_idx", lambda groups: groups.flip(0), "act-order"),
        ("qzeros", lambda zeros: zeros - 1, "zero points"),
        ("scales", lambda scales: scales.float() * (1 + 2.0**-20), "float16"),
    ],
)
def test_what_the_settings_hide_is_found_in_the_tensors(
    part: str, change: Any, named: str, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    tensors = load_file(checkpoint / "model.safetensors")
    name = f"model.layers.1.mlp.up_proj.{part}"
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"model.layers.1.mlp.up_proj.*{named}"):
        write_gguf(checkpoint, 8, tmp_path / "model.gguf", "tiny")
    assert not (tmp_path / "model.gguf").exists()


def test_scales_in_bfloat16_that_float16_holds_are_taken(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    tensors = load_file(checkpoint / "model.safetensors")
    for name in [name for name in tensors if name.endswith(".scales")]:
        tensors[name] = (2.0 ** torch.randint(-8, 0, tensors[name].shape)).bfloat16()
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    write_gguf(checkpoint, 8, tmp_path / "model.gguf", "tiny")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**LLAMA, "intermediate_size": 176}, "intermediate_size is 176"),
        ({**LLAMA, "hidden_act": "relu"}, "relu"),
        ({**LLAMA, **rope("longrope", short_factor=[1.0], long_factor=[1.0])}, "longrope"),
        ({**LLAMA, **rope("yarn", factor=4.0, attention_factor=1.3)}, "attention_factor"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({**SUPPORTED["phi3"], "partial_rotary_factor": 0.3}, "turns 9 of a head"),
        ({**LLAMA, "model_type": "qwen2", "head_dim": 64}, "hidden_size for qwen2"),
        ({**LLAMA, "model_type": "qwen3", "attention_bias": True}, "attention_bias"),
        ({**LLAMA, "model_type": "olmo2"}, "olmo2"),
        ({**SMOLLM_3, "no_rope_layers": [1, 0, 1, 1]}, "positions"),
        (SUPPORTED["gemma2"], "query_pre_attn_scalar"),
        ({**FAMILIES["gemma2"], "final_logit_softcapping": None}, "final_logit_softcapping"),
        ({**FAMILIES["gemma2"], "tie_word_embeddings": False}, "tie_word_embeddings"),
        (SUPPORTED["gemma3, each kind scaled"], "window"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_named(config: Mapping[str, Any], named: str) -> None:
    why = why_not_llama_cpp(config)
    assert why is not None
    assert named in why


@pytest.mark.parametrize("family", FAMILIES)
def test_what_it_computes_is_let_through(family: str) -> None:
    assert why_not_llama_cpp(FAMILIES[family]) is None


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({**LLAMA, "model_type": "mistral", "sliding_window": 64}, 64),  # llama.cpp has no windows for it
        ({**FAMILIES["gemma2"], "sliding_window": 64}, 256),  # it has for Gemma
        (SUPPORTED["phi3, longrope"], 128),
        ({**LLAMA, "model_type": "phi3", "sliding_window": 64}, 64),
    ],
)
def test_a_sequence_is_no_longer_than_llama_cpp_computes_as_transformers_does(
    config: Mapping[str, Any], tokens: int
) -> None:
    assert longest_for_llama_cpp(config)[0] == tokens
