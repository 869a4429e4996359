#!/usr/bin/env bash
# onnxruntime-genai 0.18.0: with top_k = 0, which turns top-k off, top_p is ignored too, and nothing says so.
#
# Plain nucleus sampling is asked for as top_k=0, top_p=0.5: so in transformers, vLLM and llama.cpp, and in recipes for
# them. onnxruntime-genai takes both values, and then samples from the whole vocabulary, its tail included; any top_p
# gives the very same draws. With a top_k of 2 or more, top_p holds: a top_k of the vocabulary's size gives the nucleus.
# A test with a toy model does not see it: in a vocabulary of 64 tokens top_p holds, in one of 128 it no longer does.
#
# Seen on CPython 3.11, Linux x86-64, CPU, for a model whose tokens 0 to 3 have the shares 0.4, 0.3, 0.2, 0.1, and 1000
# draws. Fails if that changes. Output seen:
#   vocabulary of 64, top_p=0.5, top_k=0: draws of the four tokens: [559, 441, 0, 0]
#   vocabulary of 256, top_p=0.5, top_k=256: draws of the four tokens: [559, 441, 0, 0]
#   vocabulary of 256, top_p=0.5, top_k=0: draws of the four tokens: [378, 326, 196, 100]
#   vocabulary of 256, top_p=0.05, top_k=0: draws of the four tokens: [378, 326, 196, 100]
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


def model_of(vocabulary):
    """A model that answers the same four shares after any token."""
    logits = np.full((vocabulary, vocabulary), -70, np.float32)  # a share of 4e-31
    logits[:, :4] = np.log([0.4, 0.3, 0.2, 0.1])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["logits"])], "fixed",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", vocabulary])],
        [numpy_helper.from_array(logits, "table")])
    folder = Path(str(vocabulary))
    folder.mkdir()
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), folder / "model.onnx")
    decoder = {
        "filename": "model.onnx", "session_options": {"provider_options": []}, "head_size": 1, "hidden_size": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 0,
        "inputs": {"input_ids": "input_ids"}, "outputs": {"logits": "logits"}}
    end = vocabulary - 1
    described = {
        "type": "decoder", "vocab_size": vocabulary, "context_length": 2000, "bos_token_id": end, "eos_token_id": end,
        "pad_token_id": end, "decoder": decoder}
    (folder / "genai_config.json").write_text(json.dumps({"model": described, "search": {"max_length": 2000}}))
    return onnxruntime_genai.Model(str(folder))


def draws(vocabulary, top_p, top_k):
    parameters = onnxruntime_genai.GeneratorParams(models[vocabulary])
    parameters.set_search_options(do_sample=True, random_seed=0, max_length=1001, top_p=top_p, top_k=top_k)
    generator = onnxruntime_genai.Generator(models[vocabulary], parameters)
    generator.append_tokens([0])
    while not generator.is_done():
        generator.generate_next_token()
    counts = collections.Counter(int(token) for token in generator.get_sequence(0)[1:])
    counts = [counts[token] for token in range(4)]
    print(f"vocabulary of {vocabulary}, top_p={top_p}, top_k={top_k}: draws of the four tokens: {counts}")
    return counts


models = {vocabulary: model_of(vocabulary) for vocabulary in (64, 256)}
assert draws(64, 0.5, 0)[2:] == [0, 0]
assert draws(256, 0.5, 256)[2:] == [0, 0]
whole = draws(256, 0.5, 0)
assert min(whole) > 50, "top_p holds without top_k now"
assert draws(256, 0.05, 0) == whole, "top_p matters without top_k now"
PY
