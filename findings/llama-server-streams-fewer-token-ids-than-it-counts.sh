#!/bin/sh
# llama-server's stream leaves out the ids of tokens that end inside a character, and so does its list of log-probabilities.
#
# Seen with llama.cpp b11549, as the package xllamacpp 2026.10.11549 brings it (CPU wheel, Python 3.11). A request to
# /completion with "stream": true and "return_tokens": true gets an event per token. A token whose bytes end inside a UTF-8
# character brings no event: the next one counts it in "tokens_predicted", and names its own id only. The last event's
# "tokens" are empty. Without streaming "tokens" has all ids, and "completion_probabilities" lacks the same ones.
# Whoever collects ids from a stream, or sums log-probabilities to a score, gets fewer than were written, and no error.
# Expected: every token's id, with empty text where a character is not complete.
#
# Output seen, for the four bytes of one emoji, each a token of its own:
#   written: 4 tokens, named in the stream: 1, with log-probabilities in the whole answer: 1
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/python -m pip install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.2.6
cat > tiny.py <<'PY'
import gguf
import numpy as np


def spelling():
    """GPT-2's letter for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {**{byte: chr(byte) for byte in kept}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}


letters = spelling()
words = [letters[byte] for byte in range(256)] + ["<end>"]
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
writer.add_token_merges([f"{letters[ord('a')]} {letters[ord('b')]}"])
writer.add_eos_token_id(256)
writer.add_add_bos_token(False)
random = np.random.default_rng(0)
shapes = {"token_embd": (257, 32), "output": (257, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
shapes |= {f"blk.0.{name}": (32, 32) for name in
           ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
PY
cat > ask.py <<'PY'
import json
import os
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = "tiny.gguf"
params.hostnames = [os.path.abspath("s.sock")]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 64, 1, 1, 0
server = xllamacpp.Server(params)

import http.client
import socket


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("s.sock")


def ask(**more):
    body = {"prompt": "a", "n_predict": 4, "temperature": 0, "return_tokens": True, "n_probs": 1,
            "grammar": 'root ::= "\U0001f602"', **more}
    connection = Unix("server")
    connection.request("POST", "/completion", json.dumps(body), {"content-type": "application/json"})
    return connection.getresponse().read().decode()


whole = json.loads(ask())
events = [json.loads(line[6:]) for line in ask(stream=True).splitlines() if line.startswith("data: {")]
streamed = [token for event in events for token in event["tokens"]]
told = whole["completion_probabilities"]
print(f"written: {len(whole['tokens'])} tokens, named in the stream: {len(streamed)}, "
      f"with log-probabilities in the whole answer: {len(told)}", flush=True)
same = whole["content"] == "\U0001f602" and (len(whole["tokens"]), len(streamed), len(told)) == (4, 1, 1)
os._exit(0 if same and events[-1]["tokens_predicted"] == 4 else 1)
PY
venv/bin/python tiny.py
venv/bin/python ask.py 2> log || { echo "changed: see the line above" >&2; tail -5 log >&2; exit 1; }
