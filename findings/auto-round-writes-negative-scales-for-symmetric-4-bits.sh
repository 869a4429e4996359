#!/usr/bin/env bash
# auto-round 0.16.1: half of the scales of a symmetric 4-bit checkpoint in GPTQ's format are negative.
#
# A symmetric group of GPTQ has the scale 2/15 of its largest weight, a step above 0, and codes around 8. AutoRound
# divides by 8 and signs the scale so that the largest weight, whichever sign it has, gets the code 0, which is -8 steps:
# no code is wasted. A program that multiplies code by scale is right. One that takes the logarithm of a scale, compares
# steps, or reads code 15 as the top of a group is not. And where a group's largest and smallest weight are about as far
# from 0, a fine-tuning step that swaps them turns the sign and mirrors every code of the group, though no weight moved
# by more than a little: bad for a delta between two builds. Nothing in the checkpoint tells the two kinds apart.
#
# Seen with torch 2.13.0, transformers 5.24.0, CPython 3.11, Linux x86-64, a random Llama of one layer. Fails if that
# changes. Output seen:
#   7 layers, sym True, 5120 scales: 49.8 % negative
#   the sign is the opposite of the largest weight's in 100.0 % of the groups
#   that weight has the code 0 in 100.0 % of them
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  auto-round==0.16.1 transformers==5.24.0 tokenizers==0.23.3 torch==2.13.0
cd "$folder"
cat > round.py <<'PY'
import json
from pathlib import Path

import torch
from auto_round import AutoRound
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

GROUP_SIZE = 32

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=4,
)
model = LlamaForCausalLM(config)
plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(256)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w1", unk_token="w0")
tuner = AutoRound(
    model, tokenizer, scheme="W4A16", group_size=GROUP_SIZE, iters=0, disable_opt_rtn=True, amp=False,
    enable_torch_compile=False, device_map="cpu",
)
tuner.quantize_and_save("rounded", format="auto_gptq")
file = next(Path("rounded").rglob("*.safetensors"))
settings = json.loads((file.parent / "config.json").read_text())["quantization_config"]

tensors = load_file(file)
layers = [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]
negative, opposite, lowest = [], [], []
for layer in layers:
    scales, weight = tensors[f"{layer}.scales"], plain[f"{layer}.weight"].T
    packed = tensors[f"{layer}.qweight"][:, None, :] >> torch.arange(0, 32, 4)[None, :, None]
    groups, codes = (values.reshape(-1, GROUP_SIZE, weight.shape[1]) for values in (weight, packed & 15))
    place = groups.abs().argmax(1, keepdim=True)
    largest, code = (values.gather(1, place)[:, 0] for values in (groups, codes))
    negative.append((scales < 0).flatten())
    opposite.append(((scales < 0) == (largest > 0)).flatten())
    lowest.append((code == 0).flatten())
    error = (weight - (codes - 8).reshape(weight.shape) * scales.float().repeat_interleave(GROUP_SIZE, 0)).abs()
    assert (error <= 1.01 * scales.float().abs().repeat_interleave(GROUP_SIZE, 0)).all(), "not the weights"
share, signs, codes = (float(torch.cat(flags).float().mean()) for flags in (negative, opposite, lowest))
report = [
    f"{len(layers)} layers, sym {settings['sym']}, {len(torch.cat(negative))} scales: {share:.1%} negative",
    f"the sign is the opposite of the largest weight's in {signs:.1%} of the groups",
    f"that weight has the code 0 in {codes:.1%} of them",
]
Path("report").write_text("\n".join(report).replace("%", " %") + "\n")
assert settings["quant_method"] == "gptq" and settings["sym"]
assert 0.4 < share < 0.6 and signs > 0.99, "the scales of a symmetric checkpoint are positive now"
PY
venv/bin/python round.py > log 2>&1 || { tail -20 log >&2; exit 1; }
cat report
