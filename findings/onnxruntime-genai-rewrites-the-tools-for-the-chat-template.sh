#!/usr/bin/env bash
# onnxruntime-genai 0.18.0 rewrites the tools before the chat template sees them: choices, limits and "required" are gone.
#
# apply_chat_template(tools=…) takes OpenAI's list of tools. From {"type": "function", "function": {…}} it makes the flat
# form that one family of models was trained with: {"name", "description", "parameters": {argument: {"type"}}}, and "str"
# in place of "string". That is done for every template. So a model that was trained to read the JSON schema, as Qwen,
# SmolLM, Hermes and Llama 3 were, is shown no enum, no minimum, no item types, no "required", and a type name that it
# never saw; it then calls the tool with values that the schema forbids. A template that asks for tool.function fails with
# "Trying to access property … on null", one with `tool | tojson` says nothing.
# Render the prompt with jinja2, on the host or on the board, and hand over the text.
#
# Seen with Jinja2 3.1.6, CPython 3.11, Linux x86-64. Fails if that changes. Output seen, for {{ tools[0] | tojson }}:
#   jinja2:            {"type": "function", "function": {"name": "set_light", "description": "Sets a light.", "parameters":
#     {"type": "object", "properties": {"room": {"type": "string", "enum": ["hall", "attic"]}, "level": {"type": "integer",
#     "minimum": 0, "maximum": 9}}, "required": ["room"]}}}
#   onnxruntime-genai: {"name": "set_light", "description": "Sets a light.", "parameters": {"room": {"type": "str"},
#     "level": {"type": "integer"}}}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2 tokenizers==0.23.3 Jinja2==3.1.6
cd "$folder"
venv/bin/python - <<'PY'
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime_genai
from jinja2.sandbox import ImmutableSandboxedEnvironment
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

VOCABULARY = 257
MESSAGES = [{"role": "user", "content": "Light in the attic, please."}]
ROOM = {"type": "string", "enum": ["hall", "attic"]}
LEVEL = {"type": "integer", "minimum": 0, "maximum": 9}
SCHEMA = {"type": "object", "properties": {"room": ROOM, "level": LEVEL}, "required": ["room"]}
FUNCTION = {"name": "set_light", "description": "Sets a light.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]


def tokenizer_of(folder):
    """A tokenizer of bytes. onnxruntime-genai opens one beside a model only; this one is a table, and is not run."""
    folder.mkdir()
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"]
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<end>", "eos_token": "<end>", "unk_token": "<end>"}))
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["logits"])], "table",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", VOCABULARY])],
        [numpy_helper.from_array(np.zeros((VOCABULARY, VOCABULARY), np.float32), "table")])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), folder / "model.onnx")
    decoder = {
        "filename": "model.onnx", "session_options": {"provider_options": []}, "head_size": 1, "hidden_size": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 0,
        "inputs": {"input_ids": "input_ids"}, "outputs": {"logits": "logits"}}
    described = {
        "type": "decoder", "vocab_size": VOCABULARY, "context_length": 64, "bos_token_id": 256, "eos_token_id": 256,
        "pad_token_id": 256, "decoder": decoder}
    (folder / "genai_config.json").write_text(json.dumps({"model": described, "search": {"max_length": 64}}))
    return onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(folder)))


tokenizer = tokenizer_of(Path("model"))
template = "{{ tools[0] | tojson }}"
jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
jinja.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)  # as transformers sets it
one = jinja.from_string(template).render(messages=MESSAGES, tools=TOOLS)
other = tokenizer.apply_chat_template(
    json.dumps(MESSAGES), tools=json.dumps(TOOLS), template_str=template, add_generation_prompt=False)
print("jinja2:           ", one)
print("onnxruntime-genai:", other)
assert json.loads(one) == TOOLS[0]
seen = json.loads(other)
assert "function" not in seen and "enum" not in other and "required" not in other, "the tool is shown as it is now"
assert seen["parameters"]["room"] == {"type": "str"}, "the types are shown as they are now"
PY
