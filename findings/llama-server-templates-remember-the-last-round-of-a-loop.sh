#!/usr/bin/env bash
# llama-server's chat templates keep what `{% set %}` sets in a loop for the next round; Jinja forgets it.
#
# Seen with llama.cpp b11549, as the package xllamacpp 2026.10.11549 brings it (CPU wheel). llama.cpp renders a model's chat
# template with a Jinja of its own. In Jinja, and so in transformers, a variable that is set in a `for` has its old value
# again in each round; that is why templates use namespace() to count. In llama.cpp one scope serves all rounds. So a
# template with `{% set first = false %}`, or with a variable that one branch sets and a later message asks for with
# `is defined`, gives another prompt than the model was trained with, and nothing says so. After the loop both agree.
# Whoever writes a template: set each variable at the top of the round, or use namespace(), which means the same in both.
#
# Seen with Jinja2 3.1.6, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   a mark before the first message
#     jinja2:       '<begin>hello<begin>hi<begin>bye'
#     llama-server: '<begin>hellohibye'
#   the same with namespace()
#     jinja2:       '<begin>hellohibye'
#     llama-server: '<begin>hellohibye'
#   a name that users have
#     jinja2:       'User: hello; hi; User: bye; '
#     llama-server: 'User: hello; User: hi; User: bye; '
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.2.6 Jinja2==3.1.6
cd "$folder"
cat > tiny.py <<'PY'
"""Writes tiny.gguf: a random Llama of one layer, with a vocabulary of bytes."""
import gguf
import numpy as np

printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for the bytes
others = [byte for byte in range(256) if byte not in printed]
letters = {**{byte: chr(byte) for byte in printed}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
words = [*(letters[byte] for byte in range(256)), "<end>"]
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
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list(words)
writer.add_token_types([1] * 256 + [3])
writer.add_token_merges(["a b"])
writer.add_eos_token_id(256)
writer.add_add_bos_token(False)
random = np.random.default_rng(0)
square = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()
shapes = {"token_embd": (257, 32), "output": (257, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
shapes |= {f"blk.0.{name}": (32, 32) for name in square}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PY
cat > render.py <<'PY'
"""render.py TEMPLATE: prints what Jinja makes of the template, and then what llama-server does."""
import http.client
import json
import os
import socket
import sys

import jinja2
import xllamacpp

messages = [{"role": role, "content": text} for role, text in (("user", "hello"), ("assistant", "hi"), ("user", "bye"))]
params = xllamacpp.CommonParams()
params.model.path = "tiny.gguf"
params.hostnames = [os.path.abspath("s.sock")]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 64, 1, 1, 0
params.use_jinja, params.chat_template = True, sys.argv[1]
server = xllamacpp.Server(params)


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("s.sock")


connection = Unix("server")
connection.request("POST", "/apply-template", json.dumps({"messages": messages}), {"content-type": "application/json"})
prompt = json.loads(connection.getresponse().read())["prompt"]
print(repr(jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(sys.argv[1]).render(messages=messages)))
print(repr(prompt), flush=True)
os._exit(0)
PY
venv/bin/python tiny.py
render() {  # TITLE TEMPLATE: prints both prompts, and whether they differ in $differ
    echo "$1"; rm -f s.sock
    venv/bin/python render.py "$2" > prompts 2> log || { echo "changed: no prompt" >&2; tail -5 log >&2; exit 1; }
    { read -r jinja && read -r llama; } < <(tail -2 prompts)
    printf '  jinja2:       %s\n  llama-server: %s\n' "$jinja" "$llama"
    [ "$jinja" = "$llama" ] && differ=no || differ=yes
}
render "a mark before the first message" "{% set first = true %}{% for message in messages %}{% if first %}<begin>{% endif \
%}{{ message.content }}{% set first = false %}{% endfor %}"
[ "$differ" = yes ] || { echo "changed: a variable is forgotten after its round now" >&2; exit 1; }
render "the same with namespace()" "{% set seen = namespace(first=true) %}{% for message in messages %}{% if seen.first %}<begin>\
{% endif %}{{ message.content }}{% set seen.first = false %}{% endfor %}"
[ "$differ" = no ] || { echo "changed: namespace() differs" >&2; exit 1; }
render "a name that users have" "{% for message in messages %}{% if message.role == 'user' %}{% set name = 'User' %}{% endif %}\
{% if name is defined %}{{ name }}: {% endif %}{{ message.content }}; {% endfor %}"
[ "$differ" = yes ] || { echo "changed: a variable of another round is undefined now" >&2; exit 1; }
