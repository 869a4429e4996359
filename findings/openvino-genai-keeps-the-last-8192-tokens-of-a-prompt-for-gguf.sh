#!/usr/bin/env bash
# openvino-genai 2026.4.1: of a prompt for a GGUF model only the last 8,192 tokens reach the model, and nothing says so.
#
# OpenVINO GenAI builds the tokenizer of a .gguf file from the file's metadata, with 8,192 as a constant in its graph.
# The file's context length, here 65,536, is not looked at; the options truncation=False (the default) and max_length
# change nothing. What is cut is the beginning: the system prompt, the tools, the question before a long document. The
# answer is fluent and about something else. A tokenizer that is converted from tokenizer.json has no such constant.
# Count the tokens of what encode() returns, or tokenize with the model's tokenizer.json and hand over the ids.
#
# Seen with gguf 0.19.0, CPython 3.11, Linux x86-64, for a vocabulary of the 256 bytes. Fails if that changes.
# Output seen, for a prompt of one S and letters x:
#   8,192 letters: 8,192 tokens, the first is S
#   8,193 letters: 8,192 tokens, the first is x
#   40,000 letters: 8,192 tokens, the first is x
#   40,000 letters, truncation=False, max_length=65536: 8,192 tokens, the first is x
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check openvino-genai==2026.4.1.0 gguf==0.19.0 numpy==2.2.6
cd "$folder"
cat > tiny.py <<'PY'
"""Writes tiny.gguf: a random Llama of one layer, with a vocabulary of bytes and a context of 65,536 tokens."""
import gguf
import numpy as np

printed = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's letters for the bytes
others = [byte for byte in range(256) if byte not in printed]
letters = {**{byte: chr(byte) for byte in printed}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
words = [*(letters[byte] for byte in range(256)), "ab", "<end>"]
writer = gguf.GGUFWriter("tiny.gguf", "llama")
writer.add_context_length(65536)
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
import openvino_genai

tokenizer = openvino_genai.Tokenizer("tiny.gguf")


def encoded(letters, **options):
    """How many tokens a prompt of so many letters gets, and the first of them."""
    tokens = tokenizer.encode("S" + "x" * (letters - 1), **options).input_ids.data[0]
    named = "".join(f", {name}={value}" for name, value in options.items())
    print(f"{letters:,} letters{named}: {len(tokens):,} tokens, the first is {chr(tokens[0])}")
    return len(tokens), chr(tokens[0])


assert encoded(8192) == (8192, "S")
assert encoded(8193) == (8192, "x"), "a longer prompt is kept now"
assert encoded(40000) == (8192, "x"), "a longer prompt is kept now"
assert encoded(40000, truncation=False, max_length=65536) == (8192, "x"), "a longer prompt can be asked for now"
PY
