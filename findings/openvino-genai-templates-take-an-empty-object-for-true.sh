#!/usr/bin/env bash
# openvino-genai 2026.4.1 renders a chat template in which {% if call.arguments %} is true for an empty object.
#
# In Jinja, and so in transformers, an empty mapping is false as an empty list is. Templates ask so whether a call has
# arguments, or a function parameters (`tool.parameters and tool.parameters.properties`, as gpt-oss's does). OpenVINO
# GenAI's apply_chat_template() has a Jinja of its own, in which each object is true, and each empty list, text and 0 is
# false. So a function without parameters, such as "what time is it", is shown with a list of them and brackets around
# nothing, and each earlier call of it likewise: text that the model was never trained on. No error. Ask for
# `call.arguments | length > 0`, which means the same in both, or render with jinja2 and hand over the text.
#
# Seen with Jinja2 3.1.6, gguf 0.19.0, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   arguments, jinja2:                  now() wake(with {"at": 7})
#   arguments, openvino-genai:          now(with {}) wake(with {"at": 7})
#   arguments | length, jinja2:         now() wake(with {"at": 7})
#   arguments | length, openvino-genai: now() wake(with {"at": 7})
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  openvino-genai==2026.4.1.0 gguf==0.19.0 numpy==2.2.6 Jinja2==3.1.6
cd "$folder"
cat > tiny.py <<'PY'
"""Writes tiny.gguf: a random Llama of one layer, with a vocabulary of bytes."""
import gguf
import numpy as np

printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for the bytes
others = [byte for byte in range(256) if byte not in printed]
letters = {**{byte: chr(byte) for byte in printed}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
words = [*(letters[byte] for byte in range(256)), "ab", "<end>"]
writer = gguf.GGUFWriter("tiny.gguf", "llama")
writer.add_context_length(64)
writer.add_embedding_length(32)
writer.add_block_count(1)
writer.add_feed_forward_length(32)
writer.add_head_count(1)
writer.add_head_count_kv(1)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(32)
writer.add_vocab_size(len(words))
writer.add_file_type(0)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("llama-bpe")
writer.add_token_list(words)
writer.add_token_types([1] * 257 + [3])
writer.add_token_merges(["a b"])
writer.add_bos_token_id(257)
writer.add_eos_token_id(257)
random = np.random.default_rng(0)
square = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()
shapes = {"token_embd": (258, 32), "output": (258, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
shapes |= {f"blk.0.{name}": (32, 32) for name in square}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PY
venv/bin/python tiny.py
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import json

import openvino_genai
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE = """{%- for message in messages -%}{{- message.content -}}{%- for call in message.tool_calls -%}
{{- call.function.name + '(' -}}
{%- if ASKED -%}{{- 'with ' ~ (call.function.arguments | tojson) -}}{%- endif -%}
{{- ') ' -}}
{%- endfor -%}{%- endfor -%}"""
calls = {"now": {}, "wake": {"at": 7}}
functions = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls.items()]
messages = [{"role": "user", "content": ""}, {"role": "assistant", "content": "", "tool_calls": functions}]
tokenizer = openvino_genai.Tokenizer("tiny.gguf")
jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
jinja.filters["tojson"] = json.dumps  # as transformers sets it


def rendered(asked):
    """The prompt by Jinja2 and by OpenVINO GenAI, where the template asks for the arguments so."""
    template = TEMPLATE.replace("ASKED", f"call.function.{asked}")
    pair = [jinja.from_string(template).render(messages=messages), tokenizer.apply_chat_template(messages, False, template)]
    pair = [prompt.strip() for prompt in pair]
    for engine, prompt in zip(("jinja2", "openvino-genai"), pair):
        print(f"{asked.split(' >')[0] + ', ' + engine + ':':35} {prompt}")
    return pair


right = 'now() wake(with {"at": 7})'
assert rendered("arguments") == [right, 'now(with {}) wake(with {"at": 7})'], "an empty object is false now"
assert rendered("arguments | length > 0") == [right, right]
PY
