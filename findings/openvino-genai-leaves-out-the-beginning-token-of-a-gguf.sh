#!/usr/bin/env bash
# openvino-genai 2026.4.1 doesn't put the beginning token before a prompt, though the GGUF file says add_bos_token.
#
# tokenizer.ggml.add_bos_token = true means that each prompt starts with the file's beginning token; llama.cpp obeys it,
# and the models that have it, Llama 3's among them, were trained so. OpenVINO GenAI reads the file's tokenizer without
# that key: encode() adds no token, with add_special_tokens=True (the default) as with False, though it knows which
# token it would be. Prompts through a chat template that writes the token itself are right. Plain completions, few-shot
# evaluations and templates that leave it to the tokenizer are not: the model sees another first token than in training
# and than in llama.cpp, and numbers of the two are not to be compared. No message. Put get_bos_token() before the text.
#
# Seen with llama.cpp b11549 as xllamacpp 2026.10.11549 brings it, gguf 0.19.0, CPython 3.11, Linux x86-64, for a random
# model with a vocabulary of bytes. Fails if that changes. Output seen, the tokens of "Hi":
#   add_bos_token true:  llama-server <begin> H i; openvino-genai H i
#   add_bos_token false: llama-server H i; openvino-genai H i
#   openvino-genai's get_bos_token(): <begin>
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  openvino-genai==2026.4.1.0 xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.2.6
cd "$folder"
cat > tiny.py <<'PY'
"""tiny.py FILE YES|NO: writes a random Llama of one layer with a vocabulary of bytes, with add_bos_token or without."""
import sys

import gguf
import numpy as np

printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for the bytes
others = [byte for byte in range(256) if byte not in printed]
letters = {**{byte: chr(byte) for byte in printed}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
words = [*(letters[byte] for byte in range(256)), "ab", "<begin>", "<end>"]
writer = gguf.GGUFWriter(sys.argv[1], "llama")
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
writer.add_token_types([1] * 257 + [3, 3])
writer.add_token_merges(["a b"])
writer.add_bos_token_id(257)
writer.add_eos_token_id(258)
writer.add_add_bos_token(sys.argv[2] == "yes")
random = np.random.default_rng(0)
square = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()
shapes = {"token_embd": (259, 32), "output": (259, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
shapes |= {f"blk.0.{name}": (32, 32) for name in square}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PY
cat > llama.py <<'PY'
"""llama.py FILE: prints llama-server's tokens of "Hi"."""
import http.client
import json
import os
import socket
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = [os.path.abspath("s.sock")]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 64, 1, 1, 0
server = xllamacpp.Server(params)


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("s.sock")


connection = Unix("server")
body = json.dumps({"content": "Hi", "add_special": True, "with_pieces": True})
connection.request("POST", "/tokenize", body, {"content-type": "application/json"})
print(*(token["piece"] for token in json.loads(connection.getresponse().read())["tokens"]), flush=True)
os._exit(0)
PY
cat > with_openvino.py <<'PY'
"""with_openvino.py FILE: prints OpenVINO GenAI's tokens of "Hi" and, on a line of its own, its beginning token."""
import sys

import openvino_genai

tokenizer = openvino_genai.Tokenizer(sys.argv[1])
words = {token: word.decode(errors="replace") for word, token in tokenizer.get_vocab().items()}
for choice in True, False:
    tokens = [words[token] for token in tokenizer.encode("Hi", add_special_tokens=choice).input_ids.data[0]]
    assert tokens == ["H", "i"], f"changed: with add_special_tokens={choice} the tokens are {tokens}"
print(*tokens)
print(tokenizer.get_bos_token())
PY
compare() {  # YES|NO EXPECTED: both engines' tokens
    rm -f s.sock
    venv/bin/python tiny.py "$1.gguf" "$1"
    llama=$(venv/bin/python llama.py "$1.gguf" 2> log | tail -1) || { tail -5 log >&2; exit 1; }
    openvino=$(venv/bin/python with_openvino.py "$1.gguf" 2> log) || { tail -5 log >&2; exit 1; }
    { read -r tokens && read -r begin; } <<< "$openvino"
    [ "$1" = yes ] && title="add_bos_token true: " || title="add_bos_token false:"
    echo "$title llama-server $llama; openvino-genai $tokens"
    [ "$llama" = "$2" ] || { echo "changed: llama-server has other tokens" >&2; exit 1; }
    [ "$tokens" = "H i" ] || { echo "changed: openvino-genai has other tokens" >&2; exit 1; }
}
compare yes "<begin> H i"
compare no "H i"
echo "openvino-genai's get_bos_token(): $begin"
[ "$begin" = "<begin>" ]
