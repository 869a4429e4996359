#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU): GroupQueryAttention reads one position id of a first prompt, and all ids of any later call.
#
# With do_rotary the operator turns queries and keys by `position_ids` of shape (batch, tokens). In the call that fills
# an empty cache it takes the first id of all and counts on from there. So positions with gaps (texts packed into one
# row, the padding on the left that a batch needs, a tree of drafted tokens, pages of an image) come out as 0, 1, 2, …,
# also for the second row of a batch. The very same ids are obeyed in any later call, so that a prompt in one piece and
# in two gives other logits. Half a sentence of the schema says so ("When processing the first prompt the kernel uses
# only the first element"); no check does. Feed the first token alone, or rotate before the operator.
#
# Seen with onnx 1.23.2, CPython 3.11, Linux x86-64, for random vectors of two heads. Fails if that changes. Output seen:
#   ids 0, 1, 2, 3, 4, 5: a prompt in one call and in two differ by 0.00
#   ids 0, 2, 4, 6, 8, 10: a prompt in one call and in two differ by 0.63
#   ids 0, 2, 4, 6, 8, 10 in one call differ from 0, 1, 2, 3, 4, 5 by 0.00
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HEADS, SIZE, TOKENS, LONGEST = 2, 16, 6, 64
random = np.random.default_rng(0)
angles = np.arange(LONGEST)[:, None] * 10 ** -np.linspace(0, 2, SIZE // 2)
caches = [
    numpy_helper.from_array(function(angles).astype(np.float32), name) for name, function in (("cos", np.cos), ("sin", np.sin))]
inputs = {
    **{name: (TensorProto.FLOAT, (1, "tokens", HEADS * SIZE)) for name in ("query", "key", "value")},
    **{name: (TensorProto.FLOAT, (1, HEADS, "past", SIZE)) for name in ("past_key", "past_value")},
    "seqlens_k": (TensorProto.INT32, (1,)), "total_sequence_length": (TensorProto.INT32, ()),
    "position_ids": (TensorProto.INT64, (1, "tokens"))}
order = [*(name for name in inputs if name != "position_ids"), "cos", "sin", "position_ids"]
node = helper.make_node(
    "GroupQueryAttention", order, ["output", "present_key", "present_value"], domain="com.microsoft",
    num_heads=HEADS, kv_num_heads=HEADS, do_rotary=1)
graph = helper.make_graph(
    [node], "one", [helper.make_tensor_value_info(name, *shape) for name, shape in inputs.items()],
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output], caches)
domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
model = helper.make_model(graph, ir_version=10, opset_imports=domains).SerializeToString()
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
prompt = {name: random.normal(size=(1, TOKENS, HEADS * SIZE)).astype(np.float32) for name in ("query", "key", "value")}


def attended(positions, *calls):
    """The outputs for the prompt, given in calls of so many tokens."""
    past = [np.zeros((1, HEADS, 0, SIZE), np.float32)] * 2
    outputs, done = [], 0
    for count in calls:
        piece = slice(done, done + count)
        done += count
        output, *past = session.run(None, {
            **{name: tensor[:, piece] for name, tensor in prompt.items()}, "past_key": past[0], "past_value": past[1],
            "seqlens_k": np.array([done - 1], np.int32), "total_sequence_length": np.array(done, np.int32),
            "position_ids": np.array([positions[piece]])})
        outputs.append(output)
    return np.concatenate(outputs, axis=1)


def difference(one, other):
    return round(float(np.abs(one - other).max()), 2)


dense, sparse = list(range(TOKENS)), list(range(0, 2 * TOKENS, 2))
split = {}
for positions in dense, sparse:
    split[positions[1]] = difference(attended(positions, TOKENS), attended(positions, 1, TOKENS - 1))
    print(f"ids {', '.join(map(str, positions))}: a prompt in one call and in two differ by {split[positions[1]]:.2f}")
ignored = difference(attended(sparse, TOKENS), attended(dense, TOKENS))
print(f"ids {', '.join(map(str, sparse))} in one call differ from {', '.join(map(str, dense))} by {ignored:.2f}")
assert split[1] == 0
assert split[2] > 0.1 and ignored == 0, "a first prompt's positions are obeyed now"
PY
