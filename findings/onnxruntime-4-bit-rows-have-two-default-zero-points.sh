#!/usr/bin/env bash
# ONNX Runtime 1.32.0: the same 4-bit codes without zero points mean other weights as UINT4 than as packed UINT8.
#
# com.microsoft's GatherBlockQuantized, the 4-bit embedding, takes its table as an ONNX UINT4 tensor or as bytes of two
# codes (UINT8, bits=4); both are the same bytes in the file. Its zero points are optional. Left out, they are 0 for
# UINT4, and 8 for the bytes, as in MatMulNBits, which takes bytes only. So a table that is shared with the head, or is
# retyped so as to be shared, moves by 8 steps. No shape, type or check differs: the model loads and writes nonsense.
# Always store the zero points, also where all are 8.
#
# Seen with onnx 1.23.2, CPython 3.11, Linux x86-64, CPU, scale 1. Fails if that changes. Output seen:
#   code 9 without zero points: 9 as UINT4, 1 as UINT8 of two codes, 1 in MatMulNBits
#   code 9 with zero points 8: 1 as UINT4, 1 as UINT8 of two codes, 1 in MatMulNBits
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CODE, ROWS, WIDTH, ZERO = 9, 2, 32, 8
packed = np.full((ROWS, WIDTH // 2), CODE | CODE << 4, np.uint8)
typed = helper.make_tensor("codes", TensorProto.UINT4, (ROWS, WIDTH), [CODE] * (ROWS * WIDTH))
scales = numpy_helper.from_array(np.ones((ROWS, 1), np.float32), "scales")
assert typed.raw_data in (b"", packed.tobytes())


def run(node, tensors, name, kind, value):
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info(name, kind, value.shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)], tensors)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, ir_version=10, opset_imports=domains).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return float(session.run(None, {name: value})[0].reshape(-1)[0])


def embedding(codes, zeros, **attributes):
    """The first weight of row 0."""
    inputs = ["codes", "row", "scales", *(["zeros"] if zeros else [])]
    node = helper.make_node(
        "GatherBlockQuantized", inputs, ["output"], domain="com.microsoft", block_size=WIDTH, gather_axis=0,
        quantize_axis=1, **attributes)
    return run(node, [codes, scales, *zeros], "row", TensorProto.INT64, np.array([0]))


def product(zeros):
    """The first weight of row 0, as the product of the row with (1, 0, 0, …)."""
    inputs = ["input", "codes", "scales", *(["zeros"] if zeros else [])]
    node = helper.make_node(
        "MatMulNBits", inputs, ["output"], domain="com.microsoft", K=WIDTH, N=ROWS, bits=4, block_size=WIDTH)
    codes = numpy_helper.from_array(packed.reshape(ROWS, 1, WIDTH // 2), "codes")
    return run(node, [codes, scales, *zeros], "input", TensorProto.FLOAT, np.eye(1, WIDTH, dtype=np.float32))


def weights(title, stored):
    as_uint4 = [helper.make_tensor("zeros", TensorProto.UINT4, (ROWS, 1), [ZERO] * ROWS)] if stored else []
    as_bytes = [numpy_helper.from_array(np.full((ROWS, 1), ZERO, np.uint8), "zeros")] if stored else []
    numbers = (
        embedding(typed, as_uint4), embedding(numpy_helper.from_array(packed, "codes"), as_bytes, bits=4), product(as_bytes))
    print("code 9 {}: {:.0f} as UINT4, {:.0f} as UINT8 of two codes, {:.0f} in MatMulNBits".format(title, *numbers))
    return numbers


assert weights("without zero points", stored=False) == (9, 1, 1), "the default zero points are others now"
assert weights("with zero points 8", stored=True) == (1, 1, 1)
PY
