#!/bin/sh
# The same ONNX graph attends in another window in ONNX Runtime 1.23.2 than in 1.32.0 (CPU, com.microsoft GroupQueryAttention).
#
# With local_window_size = 4 a token sees 5 tokens, itself included, in 1.23.2, and 4 in 1.32.0. transformers' `sliding_window`
# counts as 1.32.0 does. A model with sliding windows that is exported for one of them computes other logits in the other,
# and nothing says so. Boards on JetPack 6 (Python 3.10) have 1.23, as no later release has wheels for 3.10.
# Adding a bias of the windows' shape (input `attention_bias`) gives the same in both.
#
# Output seen:
#   onnxruntime 1.23.2: a token sees 5 with local_window_size=4
#   onnxruntime 1.32.0: a token sees 4 with local_window_size=4
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
cat > window.py <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

WINDOW, TOKENS, SIZE = 4, 12, 16  # one head of 16
names = ("query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length")
floats = {"query": ["b", "s", SIZE], "key": ["b", "s", SIZE], "value": ["b", "s", SIZE],
          "past_key": ["b", 1, "p", SIZE], "past_value": ["b", 1, "p", SIZE]}
inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()]
inputs += [helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["b"]),
           helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, [])]
node = helper.make_node("GroupQueryAttention", list(names), ["output", "present_key", "present_value"],
                        domain="com.microsoft", num_heads=1, kv_num_heads=1, local_window_size=WINDOW)
outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
graph = helper.make_graph([node], "window", inputs, outputs)
model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)])
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
# Equal scores for all: the output of the last token is the mean of the values that it sees, and value i is 1 at i alone.
values = np.eye(TOKENS, SIZE, dtype=np.float32)[None]
zeros = np.zeros((1, TOKENS, SIZE), np.float32)
empty = np.zeros((1, 1, 0, SIZE), np.float32)
(output, *_) = session.run(None, {
    "query": zeros, "key": zeros, "value": values, "past_key": empty, "past_value": empty,
    "seqlens_k": np.array([TOKENS - 1], np.int32), "total_sequence_length": np.array(TOKENS, np.int32)})
print(int((output[0, -1] > 1e-6).sum()))
PY
for release in 1.23.2:5 1.32.0:4; do
    version=${release%:*} expected=${release#*:}
    python3 -m venv "$version"
    "$version/bin/python" -m pip install --quiet "onnxruntime==$version" onnx==1.23.2 numpy==2.2.6
    seen=$("$version/bin/python" window.py)
    echo "onnxruntime $version: a token sees $seen with local_window_size=4"
    [ "$seen" = "$expected" ] || { echo "changed: expected $expected" >&2; exit 1; }
done
