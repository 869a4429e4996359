"""A GGUF holds the GPTQ checkpoint's weights to the last bit, whatever the family and the group."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewright_builder.export.gguf.blocks import gptq_codes, q4_0_exact
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.quantization.gptq_checkpoint import dequantized_state, read_tensors
from tests.support.gptq_checkpoints import FAMILIES, random_checkpoint

PLACES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_qkv": "self_attn.qkv_proj", "attn_norm": "input_layernorm",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
ROUNDED = ("token_embd.weight", "output.weight")
TURNS_NEIGHBOURS = ("llama", "mistral", "smollm3", "granite")
GEMMAS = ("gemma", "gemma2", "gemma3_text")


def read(path: Path) -> dict[str, tuple[NDArray[np.float32], Type]]:
    """Every tensor as the `gguf` package dequantizes it."""
    return {
        tensor.name: (
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(
                tuple(reversed(tensor.shape.tolist()))
            ),
            tensor.tensor_type,
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


def source_of(name: str, config: Mapping[str, Any]) -> str:
    """The checkpoint's name of a tensor of the file."""
    if name in ("token_embd.weight", "output.weight", "output_norm.weight"):
        return {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}.get(
            name, "model.norm.weight"
        )
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    assert match is not None, name
    layer, place, kind = match.groups()
    four_norms = config["model_type"] in ("gemma2", "gemma3_text")
    norms = {
        "ffn_norm": "pre_feedforward_layernorm" if four_norms else "post_attention_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
        "ffn_up": "mlp.gate_up_proj" if config["model_type"] == "phi3" else "mlp.up_proj",
    }
    return f"model.layers.{layer}.{(PLACES | norms)[place]}.{kind}"


def as_the_file_has_it(
    weight: NDArray[np.float32], name: str, config: Mapping[str, Any]
) -> NDArray[np.float32]:
    """Halves of each head of queries and keys interleaved where llama.cpp turns neighbours; Gemma's norms plus one."""
    heads = {"attn_q.": config["num_attention_heads"], "attn_k.": config["num_key_value_heads"]}
    for place, count in heads.items():
        if place in name and config["model_type"] in TURNS_NEIGHBOURS:
            turned = np.empty_like(weight).reshape(count, -1, *weight.shape[1:])
            halves = np.split(weight.reshape(count, -1, *weight.shape[1:]), 2, axis=1)
            turned[:, 0::2], turned[:, 1::2] = halves
            return turned.reshape(weight.shape)
    if name.endswith("norm.weight") and config["model_type"] in GEMMAS:
        return np.float32(1) + weight
    return weight


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_dequantized_file_is_the_dequantized_checkpoint_bit_for_bit(
    family: str, group_size: int, tmp_path: Path
) -> None:
    config = FAMILIES[family]
    checkpoint = random_checkpoint(config, tmp_path / "checkpoint", group_size, seed=group_size)
    write_gguf(checkpoint, 8, tmp_path / "model.gguf", "tiny")
    expected = {name: tensor.numpy() for name, tensor in dequantized_state(read_tensors(checkpoint)).items()}
    written = read(tmp_path / "model.gguf")
    assert {source_of(name, config) for name in written} == set(expected)
    for name, (weight, kind) in written.items():
        source = as_the_file_has_it(expected[source_of(name, config)], name, config)
        if name in ROUNDED:
            assert kind == Type.Q8_0
            assert (np.abs(weight - source) <= np.abs(source).max(axis=1, keepdims=True) / 127).all(), name
        else:
            assert kind == (Type.Q4_0 if source.ndim == 2 else Type.F32), name
            assert weight.tobytes() == source.astype(np.float32).tobytes(), name


@given(
    words=st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8),
    scale=st.floats(width=16, allow_nan=False, allow_infinity=False),
)
def test_any_codes_and_any_scale_of_a_block_stay_as_they_are(words: list[int], scale: float) -> None:
    qweight = np.array(words, np.uint32).view(np.int32).reshape(-1, 1)
    nibbles = np.array([word >> (4 * place) & 15 for word in words for place in range(8)], np.float32)[:32]
    block = q4_0_exact(gptq_codes(qweight)[:, :32], np.array([[scale]], np.float16))
    back = gguf.quants.dequantize(block, Type.Q4_0)
    assert (back[0] == (nibbles - 8) * np.float32(scale)).all()


def test_two_writes_of_one_checkpoint_are_equal_files(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(FAMILIES["qwen3"], tmp_path / "checkpoint", 64)
    for name in ("a.gguf", "b.gguf"):
        write_gguf(checkpoint, 4, tmp_path / name, "tiny")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(("bits", "kind"), [(8, Type.Q8_0), (4, Type.Q4_0)])
def test_the_embedding_has_the_bits_that_are_asked_for_and_a_tied_head_no_tensor(
    bits: int, kind: Type, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES["llama"], tmp_path / "checkpoint", 32)
    write_gguf(checkpoint, bits, tmp_path / "model.gguf", "tiny")
    written = read(tmp_path / "model.gguf")
    assert written["token_embd.weight"][1] == kind
    assert "output.weight" not in written
