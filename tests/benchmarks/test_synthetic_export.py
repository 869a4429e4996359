"""Measurements use folders written by `benchmarks/synthetic_export.py`; they are what the exporter would write."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from synthetic_export import write_synthetic_export

from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.fit.architecture import architecture_from_config
from edgewright_builder.fit.memory import Configuration
from edgewright_builder.models.folder import read_config
from tests.support.tiny_models import tiny_tokenizer

pytestmark = pytest.mark.slow  # the exporter imports torch
MAKE = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(
    vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, tie_word_embeddings=sys.argv[2] == "tied",
)
LlamaForCausalLM(config).to(torch.float16).save_pretrained(sys.argv[1])
"""
DECISIVE = {
    "block_size",
    "K",
    "N",
    "bits",
    "accuracy_level",
    "num_heads",
    "kv_num_heads",
    "do_rotary",
    "gather_axis",
}


@pytest.mark.parametrize(("tied", "bits"), [("tied", 8), ("tied", 4), ("untied", 8)])
def test_the_graph_has_the_nodes_and_tensors_of_a_real_export(tmp_path: Path, tied: str, bits: int) -> None:
    subprocess.run([sys.executable, "-c", MAKE, str(tmp_path / "model"), tied], check=True)
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    for name in ("real", "synthetic"):
        (tmp_path / name).mkdir()
    export_onnx(tmp_path / "model", bits, tmp_path / "real")
    model = architecture_from_config(read_config(tmp_path / "model"))
    write_synthetic_export(model, Configuration(3, 4, 32, bits, 64, 1), tmp_path / "synthetic")
    real, synthetic = tmp_path / "real/engine/model.onnx", tmp_path / "synthetic/model.onnx"
    assert nodes(synthetic) == nodes(real)
    assert tensors(synthetic) == tensors(real)


def nodes(path: Path) -> Counter[tuple[str, int, tuple[tuple[str, Any], ...]]]:
    """Kinds, how many inputs they have, and the attributes that decide what they compute."""
    found: Counter[tuple[str, int, tuple[tuple[str, Any], ...]]] = Counter()
    for node in onnx.load(str(path), load_external_data=False).graph.node:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if a.name in DECISIVE}
        found[node.op_type, len(node.input), tuple(sorted(values.items()))] += 1
    return found


def tensors(path: Path) -> Counter[tuple[int, tuple[int, ...]]]:
    """Types and shapes of the weights."""
    graph = onnx.load(str(path), load_external_data=False).graph
    return Counter((tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer)
