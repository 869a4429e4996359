#!/usr/bin/env bash
# transformers 5.24.0 splits the text for a GGUF of SmolLM, StarCoder or DeepSeek as GPT-2 would, and llama.cpp as it is meant.
#
# How a byte-level vocabulary cuts text before it merges stands in a GGUF file as a name, tokenizer.ggml.pre. transformers
# knows two dozen of the names; for any other it takes GPT-2's expression, without a word. "smollm", "starcoder" and
# "refact" (Granite) mean: each digit by itself, then the rest. So AutoTokenizer.from_pretrained(gguf_file=…) joins digits
# where the vocabulary has such tokens, and cuts line ends and spaces before a number otherwise (a numbered list, a table,
# indented code). Who fine-tunes or measures a GGUF by this road does it with other tokens than it is served with, and
# save_pretrained() writes the wrong expression into tokenizer.json. Take tokenizer.json of the original model.
#
# Seen with tokenizers 0.23.3, torch 2.13.0, gguf 0.19.0, llama.cpp b11549 (in xllamacpp 2026.10.11549), CPython 3.11, Linux
# x86-64, for a vocabulary of bytes with the tokens "20", "24", "2024" and "\n\n". Fails if that changes. Output seen:
#   gpt-2:     transformers 'y' ' ' '2024' ':' '\n' '\n' '1', llama-server 'y' ' ' '2024' ':' '\n' '\n' '1'
#   qwen2:     transformers 'y' ' ' '2' '0' '2' '4' ':' '\n\n' '1', llama-server 'y' ' ' '2' '0' '2' '4' ':' '\n\n' '1'
#   smollm:    transformers 'y' ' ' '2024' ':' '\n' '\n' '1', llama-server 'y' ' ' '2' '0' '2' '4' ':' '\n\n' '1'
#   starcoder: transformers 'y' ' ' '2024' ':' '\n' '\n' '1', llama-server 'y' ' ' '2' '0' '2' '4' ':' '\n\n' '1'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  transformers==5.24.0 tokenizers==0.23.3 torch==2.13.0 gguf==0.19.0 xllamacpp==2026.10.11549 numpy==2.2.6
cd "$folder"
cat > tiny.py <<'PY'
"""tiny.py NAME: writes NAME.gguf, a random Llama of one layer whose text is split as NAME says."""
import sys

import gguf
import numpy as np

printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for the bytes
others = [byte for byte in range(256) if byte not in printed]
letters = {**{byte: chr(byte) for byte in printed}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
end = letters[10]
words = [*(letters[byte] for byte in range(256)), "20", "24", "2024", end + end, "<end>"]
writer = gguf.GGUFWriter(f"{sys.argv[1]}.gguf", "llama")
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
writer.add_tokenizer_pre(sys.argv[1])
writer.add_token_list(words)
writer.add_token_types([1] * 260 + [3])
writer.add_token_merges(["2 0", "2 4", "20 24", f"{end} {end}"])
writer.add_eos_token_id(260)
writer.add_add_bos_token(False)
random = np.random.default_rng(0)
square = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()
shapes = {"token_embd": (261, 32), "output": (261, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
shapes |= {f"blk.0.{name}": (32, 32) for name in square}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PY
cat > hugging.py <<'PY'
"""hugging.py NAME: prints transformers' tokens of the text."""
import sys

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".", gguf_file=f"{sys.argv[1]}.gguf")
print(*(repr(tokenizer.decode([token])) for token in tokenizer("y 2024:\n\n1").input_ids))
PY
cat > llama.py <<'PY'
"""llama.py NAME: prints llama-server's tokens of the text."""
import http.client
import json
import os
import socket
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = f"{sys.argv[1]}.gguf"
params.hostnames = [os.path.abspath("s.sock")]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 64, 1, 1, 0
server = xllamacpp.Server(params)


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("s.sock")


connection = Unix("server")
body = json.dumps({"content": "y 2024:\n\n1", "with_pieces": True})
connection.request("POST", "/tokenize", body, {"content-type": "application/json"})
print(*(repr(token["piece"]) for token in json.loads(connection.getresponse().read())["tokens"]), flush=True)
os._exit(0)
PY
whole="'y' ' ' '2024' ':' '\n' '\n' '1'"
digits="'y' ' ' '2' '0' '2' '4' ':' '\n\n' '1'"
compare() {  # NAME TRANSFORMERS LLAMA: both tokenizers' tokens, and what is expected of them
    rm -f s.sock
    venv/bin/python tiny.py "$1"
    one=$(venv/bin/python hugging.py "$1" 2> log | tail -1) || { tail -5 log >&2; exit 1; }
    other=$(venv/bin/python llama.py "$1" 2> log | tail -1) || { tail -5 log >&2; exit 1; }
    printf '%-10s transformers %s, llama-server %s\n' "$1:" "$one" "$other"
    [ "$other" = "$3" ] || { echo "changed: llama-server has other tokens" >&2; exit 1; }
    [ "$one" = "$2" ] || { echo "changed: transformers has other tokens" >&2; exit 1; }
}
compare gpt-2 "$whole" "$whole"
compare qwen2 "$digits" "$digits"
compare smollm "$whole" "$digits"
compare starcoder "$whole" "$digits"
