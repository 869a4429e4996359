#!/usr/bin/env bash
# peft 0.21.2: the "linear" combination of a LoRA adapter with itself, half and half, is twice the adapter.
#
# add_weighted_adapter(["a", "b"], [0.5, 0.5], …, combination_type="linear") is how the last checkpoints of an adapter
# are averaged before it is merged into the weights and quantized. It sums the factors, each times the square root of
# its weight, and not their products: A = √½(A1 + A2), B = √½(B1 + B2). The product B·A has the cross terms B1·A2 and
# B2·A1 too, so that N like adapters of weight 1/N give N times the adapter, and checkpoints of one run nearly so. The
# docstring calls it "a very rough approximation"; it is an update N times too large. Nothing warns.
# "cat" is exact (and N times the rank), "svd" is near it at any rank.
#
# Seen with torch 2.13.0, transformers 5.24.0, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   an adapter and itself, a half each: linear 2.00, cat 1.00, svd 1.00 times the adapter
#   an adapter and its neighbour of 10% noise, a half each: linear 2.00, cat 1.00, svd 1.00 times their mean
#   four times an adapter, a quarter each: linear 4.00, cat 1.00, svd 1.00 times the adapter
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile peft==0.21.2 transformers==5.24.0 torch==2.13.0
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import torch
from peft import LoraConfig, get_peft_model

torch.manual_seed(0)
config = LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False)
model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(64, 64)), config, adapter_name="first")
layer = model.base_model.model[0]
model.add_adapter("near", config)
for factors in layer.lora_A, layer.lora_B:
    first = factors["first"].weight.data
    factors["near"].weight.data = first + 0.1 * first.std() * torch.randn_like(first)


def combined(title, adapters):
    mean = sum(layer.get_delta_weight(adapter) for adapter in adapters) / len(adapters)
    ratios = {}
    for way in "linear", "cat", "svd":
        model.add_weighted_adapter(adapters, [1 / len(adapters)] * len(adapters), "combined", combination_type=way)
        made = layer.get_delta_weight("combined")
        ratios[way] = float((made * mean).sum() / (mean * mean).sum())
        model.delete_adapter("combined")
    print(f"{title}:", ", ".join(f"{way} {ratio:.2f}" for way, ratio in ratios.items()), "times", end=" ")
    assert abs(ratios["cat"] - 1) < 0.02 and abs(ratios["svd"] - 1) < 0.02, ratios
    return ratios["linear"]


twice = combined("an adapter and itself, a half each", ["first", "first"])
print("the adapter")
near = combined("an adapter and its neighbour of 10% noise, a half each", ["first", "near"])
print("their mean")
four = combined("four times an adapter, a quarter each", ["first"] * 4)
print("the adapter")
assert abs(twice - 2) < 1e-3 and abs(near - 2) < 0.1 and abs(four - 4) < 1e-3, "the linear combination is a mean now"
PY
