#!/usr/bin/env bash
# transformers 5.24.0 loads a GGUF file of a Llama without its RoPE scaling, and says nothing.
#
# GGUF has two places for it: the keys llama.rope.scaling.type and .factor (linear, YaRN), and the tensor
# rope_freqs.weight, in which llama.cpp's converter stores Llama 3.1's and 3.2's scaling. from_pretrained(gguf_file=…)
# reads neither (the keys it reads for gpt-oss alone). The configuration says rope_type "default", the loading report
# names no tensor that was left over, and each logit is that of another model, as llama.cpp obeys both. Whoever measures
# what a GGUF quantization costs by this road measures the missing scaling. Give the scaling by hand: config.json's
# rope_parameters of the original.
#
# Seen with gguf 0.19.0, torch 2.13.0, CPython 3.11, Linux x86-64, for a random Llama of one layer and 60 tokens. Fails
# if that changes. Output seen:
#   no scaling: rope_type default
#   rope.scaling.factor 8: rope_type default, the logits of no scaling; scaled by hand they differ by 1.3 of their spread
#   rope_freqs.weight 8: rope_type default, the logits of no scaling; scaled by hand they differ by 1.3 of their spread
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  transformers==5.24.0 gguf==0.19.0 torch==2.13.0 accelerate==1.15.0 numpy==2.2.6
cd "$folder"
cat > load.py <<'PY'
import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

FACTOR, THETA = 8.0, 10000.0


def letters():
    """GPT-2's letter for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    spelling = {**{byte: chr(byte) for byte in kept}, **{byte: chr(256 + place) for place, byte in enumerate(others)}}
    return [spelling[byte] for byte in range(256)]


def write(path, keys=False, tensor=False):
    """A random Llama of one layer, with linear scaling in the one place or the other."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    writer.add_rope_freq_base(THETA)
    writer.add_vocab_size(257)
    if keys:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(FACTOR)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*letters(), "<end>"])
    writer.add_token_types([1] * 256 + [3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
    random = np.random.default_rng(0)
    for name in ("token_embd", "output"):
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.3, (257, 64)).astype(np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", random.normal(0, 0.3, (64, 64)).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(64, np.float32))
    if tensor:
        writer.add_tensor("rope_freqs.weight", np.full(16, FACTOR, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def logits(model):
    return model.eval()(torch.arange(60)[None]).logits[0, -1]


def loaded(path):
    return AutoModelForCausalLM.from_pretrained(".", gguf_file=path, dtype=torch.float32)


write("plain.gguf")
write("keys.gguf", keys=True)
write("tensor.gguf", tensor=True)
plain = loaded("plain.gguf")
unscaled = logits(plain)
plain.config.rope_parameters = {"rope_type": "linear", "factor": FACTOR, "rope_theta": THETA}
by_hand = LlamaForCausalLM(plain.config)
by_hand.load_state_dict(plain.state_dict())
change = float((logits(by_hand) - unscaled).std() / unscaled.std())
print("no scaling: rope_type default", flush=True)
for title, path in (("rope.scaling.factor 8", "keys.gguf"), ("rope_freqs.weight 8", "tensor.gguf")):
    model = loaded(path)
    kind = model.config.rope_parameters["rope_type"]
    assert kind == "default" and torch.equal(logits(model), unscaled), f"{title} is obeyed now"
    print(f"{title}: rope_type {kind}, the logits of no scaling; scaled by hand they differ by {change:.1f} of their spread")
assert change > 0.1, change
PY
venv/bin/python load.py 2> log || { tail -5 log >&2; exit 1; }
! grep -i "rope" log || { echo "changed: the log speaks of RoPE" >&2; exit 1; }
