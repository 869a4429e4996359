"""The engine folder an export of a given shape would be, with random weights, written tensor by tensor.

Memory and speed do not depend on the values, and a real 3B checkpoint would take 6 GB on disk and twice that to export.
`tests/benchmarks/test_synthetic_export.py` compares the graph with one that ONNX Runtime GenAI's builder wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import EMBEDDING_BLOCK, Configuration

CONTRIB = "com.microsoft"
EPSILON = 1e-5
PIECE_BYTES = 16 * 2**20


@dataclass
class _Writer:
    """The graph under construction and its open file of weights."""

    data: Any  # a binary file
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def node(
        self, kind: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> str:
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, domain=domain, name=outputs[0], **attributes)
        )
        return outputs[0]

    def constant(self, name: str, value: list[int] | int) -> str:
        shape = [len(value)] if isinstance(value, list) else []
        tensor = helper.make_tensor("", TensorProto.INT64, shape, value if shape else [value])
        return self.node("Constant", [], [name], value=tensor)

    def weight(self, name: str, shape: list[int], dtype: np.dtype[Any]) -> str:
        """Random codes, or floats near 0.01, appended to the file of weights."""
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(dtype), dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        length, offset = int(np.prod(shape)) * dtype.itemsize, self.data.tell()
        for piece in _pieces(length, dtype, seed=len(self.tensors)):
            self.data.write(piece)
        for key, value in (("location", "model.onnx.data"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.tensors.append(tensor)
        return name

    def linear(self, name: str, source: str, inputs: int, outputs: int, bits: int, block: int) -> str:
        """`source` times a matrix, quantized unless `bits` is 32; `name` is also the output's."""
        if bits == 32:
            dense = self.weight(
                f"{name.strip('/').replace('/', '.')}.weight", [inputs, outputs], np.dtype(np.float32)
            )
            return self.node("MatMul", [source, dense], [name])
        tensor = f"{name.strip('/').replace('/', '.')}.weight_Q{bits}"
        codes = self.weight(tensor, [outputs, inputs // block, block * bits // 8], np.dtype(np.uint8))
        scales = self.weight(f"{tensor[:-3]}_scales", [outputs, inputs // block], np.dtype(np.float32))
        return self.node(
            "MatMulNBits", [source, codes, scales], [name], CONTRIB,
            K=inputs, N=outputs, accuracy_level=4, bits=bits, block_size=block,
        )  # fmt: skip


def write_synthetic_export(architecture: Architecture, m: Configuration, folder: Path) -> None:
    """Writes model.onnx, model.onnx.data and genai_config.json into the empty `folder`."""
    model = architecture.with_layers(m.layers)
    with (folder / "model.onnx.data").open("wb") as data:
        writer = _Writer(data)
        lengths = _attention_lengths(writer)
        hidden = residual = _embedding(writer, model, m)
        for index in range(model.layers):
            hidden, residual = _layer(writer, model, m, index, hidden, residual, lengths)
        last = _normalized(writer, model, f"model.layers.{model.layers}.final_norm", hidden, residual)[0]
        _head(writer, model, m, last)
    floats, tokens = TensorProto.FLOAT, TensorProto.INT64
    past: list[str | int] = ["batch_size", model.kv_heads, "past_sequence_length", model.head_dim]
    present = [*past[:2], "total_sequence_length", model.head_dim]
    inputs: list[tuple[str, int, list[Any]]] = [("input_ids", tokens, ["batch_size", "sequence_length"])]
    inputs += [("attention_mask", tokens, ["batch_size", "total_sequence_length"])]
    inputs += [(f"past_key_values.{name}", floats, past) for name in _caches(model)]
    outputs: list[tuple[str, int, list[Any]]] = [
        ("logits", floats, ["batch_size", "sequence_length", model.vocab_size])
    ]
    outputs += [(f"present.{name}", floats, present) for name in _caches(model)]
    graph = helper.make_graph(
        writer.nodes, "main_graph", [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs], writer.tensors,
    )  # fmt: skip
    versions = [helper.make_opsetid("", 22), helper.make_opsetid(CONTRIB, 1)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=10), str(folder / "model.onnx"))
    (folder / "genai_config.json").write_text(json.dumps(_settings(model)), encoding="utf-8")


def _pieces(length: int, dtype: np.dtype[Any], seed: int) -> Iterator[bytes]:
    """No two tensors alike: the runtime keeps equal ones once."""
    random = np.random.default_rng(seed)
    for start in range(0, length, PIECE_BYTES):
        count = min(PIECE_BYTES, length - start)
        if dtype == np.float32:
            yield random.uniform(0.009, 0.011, count // 4).astype(np.float32).tobytes()
        else:
            yield random.bytes(count)


def _caches(model: Architecture) -> list[str]:
    return [f"{layer}.{which}" for which in ("key", "value") for layer in range(model.layers)]


def _attention_lengths(w: _Writer) -> list[str]:
    """Names of the tensors that say how long the sequences are, and the rotary tables' inputs after them."""
    summed = w.node("ReduceSum", ["attention_mask", w.constant("/one_axis", [1])], ["/mask/sum"], keepdims=0)
    less_one = w.node("Sub", [summed, "/one_axis"], ["/mask/sub"])
    total = w.node("Gather", [w.node("Shape", ["attention_mask"], ["/mask/shape"]), w.constant("/one", 1)],
                   ["/mask/total"], axis=0)  # fmt: skip
    return [w.node("Cast", [name], [f"{name}/int32"], to=TensorProto.INT32) for name in (less_one, total)]


def _embedding(w: _Writer, model: Architecture, m: Configuration) -> str:
    if not model.tied_embeddings or m.embedding_bits == 32:
        shape = [model.vocab_size, model.hidden_size]
        table = w.weight("model.embed_tokens.weight", shape, np.dtype(np.float32))
        return w.node("Gather", [table, "input_ids"], ["/model/embed_tokens/Gather"])
    bits, packed = m.embedding_bits, model.hidden_size * m.embedding_bits // 8
    shape_name = w.constant("/embed/shape", [model.vocab_size, packed])
    table = w.node("Reshape", [f"lm_head.MatMul.weight_Q{bits}", shape_name], ["/model/embed_tokens/Reshape"])
    return w.node(
        "GatherBlockQuantized", [table, "input_ids", "lm_head.MatMul.weight_scales"], ["/model/embed_tokens/Gather"],
        CONTRIB, bits=bits, block_size=EMBEDDING_BLOCK, gather_axis=0, quantize_axis=1,
    )  # fmt: skip


def _layer(
    w: _Writer,
    model: Architecture,
    m: Configuration,
    index: int,
    hidden: str,
    residual: str,
    lengths: list[str],
) -> tuple[str, str]:
    """One decoder layer; returns the output of its MLP and the residual stream to add it to."""
    name, bits, group = f"/model/layers.{index}", m.weight_bits, m.group_size
    size, query, key_value = model.hidden_size, model.heads * model.head_dim, model.kv_heads * model.head_dim
    normed, residual = _normalized(w, model, f"model.layers.{index}.input", hidden, residual)
    if index == 0:
        shape = [model.max_context_tokens, model.head_dim // 2]
        for table in ("cos_cache", "sin_cache"):
            w.weight(table, shape, np.dtype(np.float32))
    qkv = w.linear(f"{name}/attn/qkv_proj/MatMul", normed, size, query + 2 * key_value, bits, group)
    past = [f"past_key_values.{index}.key", f"past_key_values.{index}.value"]
    attended = w.node(
        "GroupQueryAttention", [qkv, "", "", *past, *lengths, "cos_cache", "sin_cache", "", "", ""],
        [f"{name}/attn/GroupQueryAttention", f"present.{index}.key", f"present.{index}.value"], CONTRIB,
        num_heads=model.heads, kv_num_heads=model.kv_heads, scale=model.head_dim**-0.5, local_window_size=-1,
        softcap=0.0, do_rotary=1, rotary_interleaved=0,
    )  # fmt: skip
    projected = w.linear(f"{name}/attn/o_proj/MatMul", attended, query, size, bits, group)
    normed, residual = _normalized(w, model, f"model.layers.{index}.post_attention", projected, residual)
    gate = w.linear(f"{name}/mlp/gate_proj/MatMul", normed, size, model.intermediate_size, bits, group)
    up = w.linear(f"{name}/mlp/up_proj/MatMul", normed, size, model.intermediate_size, bits, group)
    sigmoid = w.node("Sigmoid", [gate], [f"{name}/mlp/act_fn/Sigmoid"])
    activated = w.node("Mul", [gate, sigmoid], [f"{name}/mlp/act_fn/Mul"])
    product = w.node("Mul", [activated, up], [f"{name}/mlp/Mul"])
    return w.linear(
        f"{name}/mlp/down_proj/MatMul", product, model.intermediate_size, size, bits, group
    ), residual


def _normalized(w: _Writer, model: Architecture, name: str, hidden: str, residual: str) -> tuple[str, str]:
    """RMS norm of hidden + residual, and that sum; the first of a model has nothing to add."""
    weight = w.weight(f"{name}_layernorm.weight", [model.hidden_size], np.dtype(np.float32))
    out = f"/{name}_layernorm"
    if hidden == residual:
        inputs = [hidden, weight]
        return w.node(
            "SimplifiedLayerNormalization", inputs, [out], epsilon=EPSILON, axis=-1, stash_type=1
        ), hidden
    last = name.endswith("final_norm")
    outputs = [out] if last else [out, "", "", f"{out}/sum"]
    inputs = [residual, hidden, weight]
    w.node("SkipSimplifiedLayerNormalization", inputs, outputs, CONTRIB, epsilon=EPSILON)
    return out, outputs[-1]


def _head(w: _Writer, model: Architecture, m: Configuration, hidden: str) -> None:
    name, bits = "/lm_head/MatMul", m.embedding_bits
    w.linear(name, hidden, model.hidden_size, model.vocab_size, bits, EMBEDDING_BLOCK)
    w.nodes[-1].output[0] = "logits"


def _settings(model: Architecture) -> dict[str, Any]:
    inputs = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    inputs |= {f"past_{name}_names": f"past_key_values.%d.{name}" for name in ("key", "value")}
    outputs = {"logits": "logits"}
    outputs |= {f"present_{name}_names": f"present.%d.{name}" for name in ("key", "value")}
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []}, "filename": "model.onnx",
        "head_size": model.head_dim, "hidden_size": model.hidden_size, "inputs": inputs, "outputs": outputs,
        "num_attention_heads": model.heads, "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
    }  # fmt: skip
    return {
        "model": {
            "bos_token_id": 1, "context_length": model.max_context_tokens, "decoder": decoder,
            "eos_token_id": model.vocab_size - 1, "pad_token_id": 2, "type": "llama", "vocab_size": model.vocab_size,
        },
        "search": {"do_sample": False, "max_length": model.max_context_tokens, "past_present_share_buffer": True},
    }  # fmt: skip
