#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU): com.microsoft's RotaryEmbedding takes the attribute `scale`, and computes as if it weren't there.
#
# Its schema says "Custom scale will be used if specified. Default value is 1.0". Whoever exports a model with YaRN or
# LongRoPE has such a number, the attention factor by which cos and sin are multiplied (1.19 for LongRoPE at 32 times
# the length), and finds this place for it. The graph loads, runs, and each query and key is that much too small: the
# attention of each layer is flatter, by the square of it, with no error. An attribute that isn't in the schema is
# refused ("Unrecognized attribute"). Multiply the two caches by the number, as onnxruntime-genai's builder does.
#
# Seen with onnx 1.23.2, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   scale left out: [3, 4] at angle 0 becomes [3.0, 4.0]
#   scale 2: [3, 4] at angle 0 becomes [3.0, 4.0]
#   caches times 2: [3, 4] at angle 0 becomes [6.0, 8.0]
#   factor 2: refused, Unrecognized attribute: factor for operator RotaryEmbedding
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import re

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

VECTOR, POSITIONS = [3, 4], 8


def rotated(cache_factor=1.0, **attributes):
    """The vector at angle 0, where cos is 1 and sin is 0."""
    node = helper.make_node(
        "RotaryEmbedding", ["input", "positions", "cos", "sin"], ["output"], domain="com.microsoft", **attributes)
    caches = [
        numpy_helper.from_array(np.full((POSITIONS, 1), value * cache_factor, np.float32), name)
        for name, value in (("cos", 1), ("sin", 0))]
    graph = helper.make_graph(
        [node], "one", [
            helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 1, 1, 2)),
            helper.make_tensor_value_info("positions", TensorProto.INT64, (1, 1))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 1, 1, 2))], caches)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, ir_version=10, opset_imports=domains).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {"input": np.array(VECTOR, np.float32).reshape(1, 1, 1, 2), "positions": np.zeros((1, 1), np.int64)}
    return session.run(None, feeds)[0].reshape(-1).tolist()


plain, scaled, by_caches = rotated(), rotated(scale=2.0), rotated(cache_factor=2.0)
for title, vector in (("scale left out", plain), ("scale 2", scaled), ("caches times 2", by_caches)):
    print(f"{title}: {VECTOR} at angle 0 becomes {vector}")
try:
    rotated(factor=2.0)
except Exception as error:
    print("factor 2: refused,", re.search("Unrecognized attribute.*", str(error)).group())
else:
    raise SystemExit("an unknown attribute is taken now")
assert plain == [3, 4] and by_caches == [6, 8]
assert scaled == [3, 4], "scale is obeyed now"
PY
