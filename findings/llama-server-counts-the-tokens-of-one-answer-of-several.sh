#!/usr/bin/env bash
# llama-server's "usage" counts the tokens of one answer, also where a request asks for several.
#
# Seen with llama.cpp b11549, as the package xllamacpp 2026.10.11549 brings it (CPU wheel). "n": 3 gives three choices, and
# OpenAI's usage counts what all of them took. llama-server's has the completion_tokens of one, and total_tokens from it;
# of a list of prompts it counts the first prompt's tokens alone, so that a long second prompt is free. A limit per user,
# a price, tokens per second and joules per token that are made of usage are off by the number of answers. In a stream
# each choice brings a usage of its own, all of them under one id: a client that takes the last one has the same number.
# Send a request per answer, or count the choices' tokens.
#
# Seen with CPython 3.11, Linux x86-64, for a random model that writes 5 tokens an answer. Fails if that changes. Output seen:
#   one answer: 5 tokens written, completion_tokens 5; 2 tokens of prompts, prompt_tokens 2
#   "n": 3: 15 tokens written, completion_tokens 5; 2 tokens of prompts, prompt_tokens 2
#   a list of 2 prompts: 10 tokens written, completion_tokens 5; 102 tokens of prompts, prompt_tokens 2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.2.6
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
writer.add_context_length(1024)
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
writer.add_token_types([1] * 257 + [3])
writer.add_token_merges(["a b"])
writer.add_eos_token_id(257)
writer.add_add_bos_token(False)
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
cat > usage.py <<'PY'
import http.client
import json
import os
import socket

import xllamacpp

TOKENS = 5
params = xllamacpp.CommonParams()
params.model.path = "tiny.gguf"
params.hostnames = [os.path.abspath("s.sock")]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 1024, 4, 1, 0
server = xllamacpp.Server(params)


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("s.sock")


def post(path, body):
    connection = Unix("server")
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    return json.loads(connection.getresponse().read())


def used(title, prompts, **more):
    """The tokens that were written and those of the prompts, each beside what usage says."""
    answer = post("/v1/completions", {"prompt": prompts, "max_tokens": TOKENS, "logprobs": 1, "ignore_eos": True, **more})
    texts = prompts if isinstance(prompts, list) else [prompts]
    told = sum(len(post("/tokenize", {"content": text})["tokens"]) for text in texts)
    written, usage = TOKENS * len(answer["choices"]), answer["usage"]
    assert all(choice["finish_reason"] == "length" for choice in answer["choices"]), answer
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], usage
    print(f"{title}: {written} tokens written, completion_tokens {usage['completion_tokens']}; "
          f"{told} tokens of prompts, prompt_tokens {usage['prompt_tokens']}", flush=True)
    return written, usage["completion_tokens"], told, usage["prompt_tokens"]


seen = [used("one answer", "hi"), used('"n": 3', "hi", n=3), used("a list of 2 prompts", ["hi", "x" * 100])]
os._exit(0 if seen == [(5, 5, 2, 2), (15, 5, 2, 2), (10, 5, 102, 2)] else 1)
PY
venv/bin/python tiny.py
venv/bin/python usage.py 2> log || { echo "changed: see the lines above" >&2; tail -5 log >&2; exit 1; }
