#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU) rounds the inputs of 4-bit DequantizeLinear + MatMul, both of the ONNX standard, to 8 bits.
#
# A session replaces the pair by its own operator MatMulNBits with accuracy_level 4: each block of a row of inputs gets
# a scale of its largest value / 127, and the rest is rounded to that. The standard knows no such step, the graph on the
# disk has none, and its author chose nothing. Activations of language models have a few inputs that are a hundred times
# the others (they carry the attention sink): beside one of them all the others of its block become 0. "Weights only" is
# what a tool that writes this graph promises, and a comparison with onnx's own evaluator shows an error that isn't the
# quantization's. One comment in a header names the default of 4; no warning is printed.
# The session's entry session.qdq_matmulnbits_accuracy_level = 1 computes what the graph says.
#
# Seen with onnx 1.23.2, CPython 3.11, Linux x86-64. Fails if that changes. Output seen, for inputs of 0.4 beside one of
# 127 whose weight is 0, and for random ones:
#   0.4 63 times: 25.2 by onnx, 12.8 by onnxruntime, 25.2 with the entry 1
#   random inputs: off by 0.50% of the outputs' spread by default, by 0.00% with the entry 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

BLOCK, INPUTS, OUTPUTS = 32, 64, 16
ENTRY = "session.qdq_matmulnbits_accuracy_level"
random = np.random.default_rng(0)


def layer(codes):
    """One layer of 4-bit weights in blocks of 32, each with a scale of 1."""
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scales"], ["weights"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["input", "weights"], ["output"])]
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", INPUTS])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", OUTPUTS])],
        [helper.make_tensor("codes", TensorProto.INT4, codes.shape, codes.reshape(-1).tolist()),
         numpy_helper.from_array(np.ones((INPUTS // BLOCK, OUTPUTS), np.float32), "scales")])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    checker.check_model(model)
    return model


def outputs(codes, rows):
    """The layer's outputs by onnx, by onnxruntime, and by onnxruntime with the entry 1."""
    model = layer(codes)
    results = [ReferenceEvaluator(model).run(None, {"input": rows})[0]]
    for entries in {}, {ENTRY: "1"}:
        options = onnxruntime.SessionOptions()
        for name, value in entries.items():
            options.add_session_config_entry(name, value)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"input": rows})[0])
    return results


codes, row = np.ones((INPUTS, OUTPUTS), np.int8), np.full((1, INPUTS), 0.4, np.float32)
codes[0], row[0, 0] = 0, 127
one = [round(float(output[0, 0]), 1) for output in outputs(codes, row)]
print("0.4 63 times: {} by onnx, {} by onnxruntime, {} with the entry 1".format(*one))
right, *others = outputs(
    random.integers(-8, 8, (INPUTS, OUTPUTS)).astype(np.int8), random.normal(size=(64, INPUTS)).astype(np.float32))
off = [float(np.std(output - right) / np.std(right)) for output in others]
print("random inputs: off by {:.2%} of the outputs' spread by default, by {:.2%} with the entry 1".format(*off))
assert one == [25.2, 12.8, 25.2], "the inputs are rounded otherwise now"
assert off[0] > 0.002 and off[1] < 1e-5
PY
