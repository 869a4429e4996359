#!/usr/bin/env bash
# gguf 0.19.0: a SentencePiece model's user_defined_symbols become common words in the GGUF, and llama.cpp spells them.
#
# user_defined_symbols is how the marks of a chat get into a SentencePiece vocabulary: "<|user|>" is one token, always.
# gguf.vocab.SentencePieceVocab hands out each piece with its type, but doesn't tell these from others: they come as
# NORMAL. llama.cpp looks for USER_DEFINED tokens in a text before it merges letters, and for NORMAL ones it does not; no
# merge leads to "<|user|>", so it is spelled as eight tokens, in each prompt. The model, trained with one, sees noise
# where the turn begins. The file loads, its list of tokens is complete, and no line says so. (A few marks come through:
# llama.cpp knows "<|end|>" and its like by name.) Set the type of these pieces to TokenType.USER_DEFINED by hand.
#
# Seen with sentencepiece 0.2.3, llama.cpp b11549 as xllamacpp 2026.10.11549 brings it, CPython 3.11, Linux x86-64. Fails
# if that changes. Output seen, for "<|user|>light" and types as gguf gives them and by hand:
#   sentencepiece:         ▁ <|user|> li ght
#   llama-server:          ▁ < | u s er | > li ght
#   llama-server, by hand: <|user|> ▁light
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  sentencepiece==0.2.3 gguf==0.19.0 xllamacpp==2026.10.11549 numpy==2.2.6
cd "$folder"
cat > tiny.py <<'PY'
"""Trains tokenizer.model with two marks, and writes it into given.gguf and, with the marks' type set, into by_hand.gguf."""
import random
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from gguf.vocab import SentencePieceVocab

MARKS = ["<|user|>", "<|assistant|>"]
WORDS = "the board answers a question about engines and models with few bits hello light on off in room".split()
chance = random.Random(0)
with open("tokenizer.model", "wb") as file:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join(chance.choices(WORDS, k=8)) for _ in range(400)), model_writer=file, vocab_size=400,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, user_defined_symbols=MARKS, minloglevel=2)


def write(name, by_hand):
    """A random Llama of one layer with this vocabulary."""
    words, scores, types = map(list, zip(*SentencePieceVocab(Path()).all_tokens()))
    assert [types[words.index(mark.encode())] for mark in MARKS] == [gguf.TokenType.NORMAL] * 2, "changed: the marks' type"
    if by_hand:
        for mark in MARKS:
            types[words.index(mark.encode())] = gguf.TokenType.USER_DEFINED
    writer = gguf.GGUFWriter(name, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model(SentencePieceVocab.tokenizer_model)
    writer.add_token_list(words)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    numbers = np.random.default_rng(0)
    square = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()
    shapes = {"token_embd": (len(words), 32), "output": (len(words), 32), "output_norm": (32,)}
    shapes |= {"blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)} | {f"blk.0.{layer}": (32, 32) for layer in square}
    for layer, shape in shapes.items():
        writer.add_tensor(f"{layer}.weight", numbers.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


write("given.gguf", by_hand=False)
write("by_hand.gguf", by_hand=True)
processor = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
print(*processor.encode("<|user|>light", out_type=str))
PY
cat > llama.py <<'PY'
"""llama.py FILE: prints llama-server's tokens of the text."""
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
body = json.dumps({"content": "<|user|>light", "with_pieces": True})
connection.request("POST", "/tokenize", body, {"content-type": "application/json"})
print(*(token["piece"].replace(" ", "▁") for token in json.loads(connection.getresponse().read())["tokens"]), flush=True)
os._exit(0)
PY
export PYTHONIOENCODING=utf-8
expect() {  # TITLE EXPECTED SEEN
    printf '%-22s %s\n' "$1:" "$3"
    [ "$3" = "$2" ] || { echo "changed: expected $2" >&2; tail -5 log >&2; exit 1; }
}
llama() { rm -f s.sock; venv/bin/python llama.py "$1" 2> log | tail -1; }
expect "sentencepiece" "▁ <|user|> li ght" "$(venv/bin/python tiny.py 2> log | tail -1)"
expect "llama-server" "▁ < | u s er | > li ght" "$(llama given.gguf)"
expect "llama-server, by hand" "<|user|> ▁light" "$(llama by_hand.gguf)"
