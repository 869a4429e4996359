#!/usr/bin/env bash
# hqq 0.2.8.post1: a step of its quantization is never below 1/20000, so that a layer of small weights gets few steps or none.
#
# A group of weights is divided into 2^bits - 1 steps between its smallest and its largest. So a layer and a thousandth of
# it lose the same share. HQQ limits the reciprocal of the step to 2e4 ("to avoid half-precision problems", in float32
# too), and where a group spans less than 1e-4 it takes a step of 1, which rounds the group to one value. At 8 bits the limit
# is reached where a group spans 0.0128, at a deviation of 0.003: with half of that 8 bits are worth 7, with a quarter 6,
# though each weight takes its 8 bits. At 4 bits it begins at 0.00075. Low-rank factors and layers whose output is scaled
# have such weights. No warning, no word in the README. Multiply the layer by a constant and its output by the reciprocal.
#
# Seen with torch 2.13.0, CPython 3.11, Linux x86-64, random weights, groups of 64; as a share of the weights, beside that of
# rounding to the nearest of as many steps. Fails if that changes. Output seen:
#   8 bits, deviation 0.02: hqq is off by 0.5%, rounding by 0.5%
#   8 bits, deviation 0.002: hqq is off by 0.7%, rounding by 0.5%
#   8 bits, deviation 0.0005: hqq is off by 2.7%, rounding by 0.5%
#   8 bits, deviation 0.0001: hqq is off by 13.7%, rounding by 0.5%
#   8 bits, deviation 1e-05: hqq is off by 99.2%, rounding by 0.5%
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.2.6 termcolor==3.3.0 einops==0.8.2
# Alone: transformers and accelerate, which it names too, have no part in this.
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps hqq==0.2.8.post1
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import torch
from hqq.core.quantize import BaseQuantizeConfig, Quantizer

BITS, GROUP = 8, 64
parameters = BaseQuantizeConfig(nbits=BITS, group_size=GROUP, axis=1)["weight_quant_params"]
torch.manual_seed(0)
normal = torch.randn(64, 1024)


def with_hqq(weights):
    packed, meta = Quantizer.quantize(weights, device="cpu", compute_dtype=torch.float32, **parameters)
    return Quantizer.dequantize(packed, meta)


def rounded(weights):
    groups = weights.reshape(-1, GROUP)
    lowest = groups.amin(1, keepdim=True)
    step = (groups.amax(1, keepdim=True) - lowest) / (2**BITS - 1)
    return (lowest + step * ((groups - lowest) / step).round()).reshape(weights.shape)


lost = {}
for deviation in 0.02, 0.002, 0.0005, 0.0001, 0.00001:
    weights = normal * deviation
    by_hqq, by_rounding = (float((way(weights) - weights).norm() / weights.norm()) for way in (with_hqq, rounded))
    print(f"{BITS} bits, deviation {deviation:g}: hqq is off by {by_hqq:.1%}, rounding by {by_rounding:.1%}")
    assert by_rounding < 0.006
    lost[deviation] = by_hqq
assert lost[0.02] < 0.006
assert lost[0.0005] > 0.02 and lost[0.0001] > 0.1 and lost[0.00001] > 0.9, "the share no longer depends on the weights' size"
PY
