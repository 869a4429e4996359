#!/usr/bin/env bash
# gguf 0.19.0 calls every SentencePiece vocabulary "llama", also a Unigram, which llama.cpp then merges letter by letter.
#
# SentencePiece's default model is the Unigram: of all ways to cut a text it takes the likeliest. tokenizer.ggml.model =
# "llama" means the other kind, BPE: join two neighbours as long as the result is a token. gguf.vocab.SentencePieceVocab
# has "llama" as its tokenizer_model and does not look at what it opened. A Unigram keeps the word and drops its halves,
# so hardly a word can be reached by joining: llama.cpp spells the text, with letters that are all in the vocabulary. No
# message; the prompt has several times the tokens, and the model never saw such text. Write "t5", llama.cpp's name for a
# Unigram, and add_space_prefix; that gives SentencePiece's tokens.
#
# Seen with sentencepiece 0.2.3, llama.cpp b11549 as xllamacpp 2026.10.11549 brings it, CPython 3.11, Linux x86-64. Fails
# if that changes. Output seen, for "the board answers":
#   sentencepiece:         ▁the ▁board ▁answers
#   llama-server, "llama": ▁ t h e ▁ b o a r d ▁a n s w e r s
#   llama-server, "t5":    ▁the ▁board ▁answers
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  sentencepiece==0.2.3 gguf==0.19.0 xllamacpp==2026.10.11549 numpy==2.2.6
cd "$folder"
cat > tiny.py <<'PY'
"""Trains tokenizer.model, a Unigram, and writes it into llama.gguf, as gguf names it, and into t5.gguf."""
import random
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from gguf.vocab import SentencePieceVocab

WORDS = "the board answers a question about engines and models with few bits hello light on off in room".split()
chance = random.Random(0)
with open("tokenizer.model", "wb") as file:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join(chance.choices(WORDS, k=8)) for _ in range(400)), model_writer=file, vocab_size=360,
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2)


def write(kind):
    """A random Llama of one layer with this vocabulary."""
    words, scores, types = map(list, zip(*SentencePieceVocab(Path()).all_tokens()))
    writer = gguf.GGUFWriter(f"{kind}.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model(kind)
    writer.add_add_space_prefix(True)
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


assert SentencePieceVocab.tokenizer_model == "llama", "changed: gguf has another name"
write("llama")
write("t5")
processor = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
print(*processor.encode("the board answers", out_type=str))
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
body = json.dumps({"content": "the board answers", "with_pieces": True})
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
words="▁the ▁board ▁answers"
expect "sentencepiece" "$words" "$(venv/bin/python tiny.py 2> log | tail -1)"
expect 'llama-server, "llama"' "▁ t h e ▁ b o a r d ▁a n s w e r s" "$(llama llama.gguf)"
expect 'llama-server, "t5"' "$words" "$(llama t5.gguf)"
