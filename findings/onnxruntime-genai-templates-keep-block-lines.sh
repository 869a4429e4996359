#!/usr/bin/env bash
# onnxruntime-genai 0.18.0 keeps a chat template's line ends and indents that transformers takes away.
#
# transformers renders chat templates with Jinja's trim_blocks and lstrip_blocks: the line end after a `{% %}` and the
# spaces before it are no text. A template may therefore be written on indented lines without `{%- -%}`, and those of
# Zephyr and TinyLlama are. onnxruntime-genai's Tokenizer.apply_chat_template() has a Jinja of its own that does
# neither. So each message gets blank lines and indents around it that the model was not trained with; nothing warns, and
# the answers get a little worse. Write `{%-` and `-%}` at each block, or render with jinja2 and hand over the text.
#
# Seen with Jinja2 3.1.6, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   jinja2:            '<|user|>\nHello<|end|>\n\n<|assistant|>\n'
#   onnxruntime-genai: '\n  \n<|user|>\nHello<|end|>\n\n  \n\n<|assistant|>\n'
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


def rendered(template, messages):
    """The prompt by Jinja2, with the options that transformers gives it, and by onnxruntime-genai."""
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    one = jinja.from_string(template).render(messages=messages)
    return one, tokenizer.apply_chat_template(json.dumps(messages), template_str=template, add_generation_prompt=False)


tokenizer = tokenizer_of(Path("model"))
template = r"""{% for message in messages %}
  {% if message.role == 'user' %}
{{ '<|user|>\n' + message.content + '<|end|>\n' }}
  {% endif %}
{% endfor %}
{{ '<|assistant|>\n' }}"""
tight = template.replace("{%", "{%-").replace("%}", "-%}").replace("{{", "{{-").replace("}}", "-}}")
messages = [{"role": "user", "content": "Hello"}]
one, other = rendered(template, messages)
print("jinja2:           ", repr(one))
print("onnxruntime-genai:", repr(other))
same = rendered(tight, messages)
assert same[0] == same[1], same
assert other != one and other.split() == one.split(), "the two agree now"
PY
