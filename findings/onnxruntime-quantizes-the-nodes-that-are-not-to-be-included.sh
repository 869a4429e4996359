#!/usr/bin/env bash
# onnxruntime 1.32.0: MatMulNBitsQuantizer(nodes_to_include=[…]) quantizes every other MatMul too.
#
# nodes_to_include (on the command line --nodes_to_include) reads as the list of what is to be quantized. A node is
# quantized if it is in the list *or* its type is among the types to quantize, and that is MatMul unless told
# otherwise; an empty tuple of types counts as not told. So the list changes nothing: not for one layer, and not with a
# name that does not exist. Whoever tries layer after layer, to see which one the 4 bits hurt, measures the whole
# model each time, and gets the same number for each layer. nodes_to_exclude works: give it all the others.
#
# Seen with onnx 1.23.2, CPython 3.11, Linux x86-64, for a model of three layers. Fails if that changes. Output seen:
#   no list:                              attention, feed_forward, head
#   nodes_to_include attention:           attention, feed_forward, head
#   nodes_to_include no_such_layer:       attention, feed_forward, head
#   nodes_to_exclude feed_forward, head:  attention
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnxruntime==1.32.0 onnx==1.23.2 onnx-ir==1.1.0 ml-dtypes==0.6.0 numpy==2.2.6
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

LAYERS, WIDTH = ["attention", "feed_forward", "head"], 64
random = np.random.default_rng(0)
weights = {layer: random.normal(size=(WIDTH, WIDTH)).astype(np.float32) for layer in LAYERS}


def quantized(title, **options):
    """The layers that are MatMulNBits afterwards."""
    nodes = [
        helper.make_node("MatMul", [before, f"{layer}.weight"], [layer], name=layer)
        for before, layer in zip(["input", *LAYERS], LAYERS)]
    graph = helper.make_graph(
        nodes, "three", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("head", TensorProto.FLOAT, ["rows", WIDTH])],
        [numpy_helper.from_array(weight, f"{layer}.weight") for layer, weight in weights.items()])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    quantizer = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=True, **options)
    quantizer.process()
    taken = [node.output[0] for node in quantizer.model.model.graph.node if node.op_type == "MatMulNBits"]
    print(f"{title + ':':37} {', '.join(taken)}")
    return taken


assert quantized("no list") == LAYERS
for layer in "attention", "no_such_layer":
    assert quantized(f"nodes_to_include {layer}", nodes_to_include=[layer]) == LAYERS, "the list is obeyed now"
assert quantized("nodes_to_exclude feed_forward, head", nodes_to_exclude=["feed_forward", "head"]) == ["attention"]
PY
