#!/usr/bin/env bash
# onnxruntime-genai 0.18.0: with top_k = 0, which turns top-k off, top_p is ignored too, and nothing says so.
#
# Plain nucleus sampling is asked for as top_k=0, top_p=0.5: so in transformers, vLLM and llama.cpp, and in recipes for
# them. onnxruntime-genai takes both values, and then samples from the whole vocabulary, its tail included. With any
# top_k of 1 or more, top_p holds: a top_k of the vocabulary's size gives the nucleus.
#
# Seen on CPython 3.11, Linux x86-64, CPU, for a model of four tokens of shares 0.4, 0.3, 0.2, 0.1 and 1000 draws each
# (the counts vary a little). Fails if that changes. Output seen:
#   top_p=0.5, top_k=4: draws of the four tokens: [562, 438, 0, 0]
#   top_p=0.5, top_k=0: draws of the four tokens: [391, 289, 213, 107]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2
cd "$folder"
venv/bin/python - <<'PY'
import collections
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime_genai
from onnx import TensorProto, helper, numpy_helper

END = 4  # a fifth token that no draw gives
shares = np.array([0.4, 0.3, 0.2, 0.1, 0])
table = np.tile(np.log(np.maximum(shares, 1e-30)), (5, 1)).astype(np.float32)  # a row of logits for any token
graph = helper.make_graph(
    [helper.make_node("Gather", ["table", "input_ids"], ["logits"])], "fixed",
    [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", 5])],
    [numpy_helper.from_array(table, "table")])
folder = Path("model")
folder.mkdir()
onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), folder / "model.onnx")
decoder = {
    "filename": "model.onnx", "session_options": {"provider_options": []}, "head_size": 1, "hidden_size": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 0,
    "inputs": {"input_ids": "input_ids"}, "outputs": {"logits": "logits"}}
described = {
    "type": "decoder", "vocab_size": 5, "context_length": 2000, "bos_token_id": END, "eos_token_id": END,
    "pad_token_id": END, "decoder": decoder}
(folder / "genai_config.json").write_text(json.dumps({"model": described, "search": {"max_length": 2000}}))
model = onnxruntime_genai.Model(str(folder))


def draws(**options):
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=True, random_seed=0, max_length=1001, **options)
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens([0])
    while not generator.is_done():
        generator.generate_next_token()
    counts = collections.Counter(int(token) for token in generator.get_sequence(0)[1:])
    counts = [counts[token] for token in range(4)]
    asked = ", ".join(f"{name}={value}" for name, value in options.items())
    print(f"{asked}: draws of the four tokens: {counts}")
    return counts


assert draws(top_p=0.5, top_k=4)[2:] == [0, 0]
assert min(draws(top_p=0.5, top_k=0)) > 50, "top_p holds without top_k now"
PY
