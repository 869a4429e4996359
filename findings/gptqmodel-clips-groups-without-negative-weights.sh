#!/usr/bin/env bash
# GPTQModel 7.6.0, symmetric 4 bits: a group whose weights are all positive is clipped to 7/15 of its largest weight.
#
# The scale of a group is (xmax - xmin) / 15. For symmetric groups xmin is set to -xmax, but only where xmin < 0. A
# group without a negative weight keeps xmin = 0: half the scale, and still the zero point 8, so that every weight
# above 7/15 of the largest is cut to it. The mirrored group, all negative, is quantized well. Such groups are rare in
# trained layers of 64 inputs and more; convolutions, small groups and positive gates have them.
#
# Seen on CPython 3.11, Linux x86-64, CPU: the largest of 64 positive weights, 1.0, becomes 0.467; of 64 negative
# ones, -1.0 becomes -0.933. Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check GPTQModel==7.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
from gptqmodel import QuantizeConfig
from gptqmodel.quantization.quantizer import Quantizer

weight = torch.linspace(0.1, 1.0, 64).repeat(2, 1)
weight[1] = -weight[1]
quantizer = Quantizer(QuantizeConfig(bits=4, group_size=64, sym=True))
quantizer.configure(perchannel=True)
quantizer.find_params(weight, weight=True)
rounded = quantizer.quantize(weight)
print(f"1.0 among positive weights becomes {rounded[0, -1]:.3f}; -1.0 among negative ones {rounded[1, -1]:.3f}")
assert abs(float(rounded[0, -1]) - 7 / 15) < 1e-3, "positive groups are no longer clipped"
assert abs(float(rounded[1, -1]) + 1) < 0.1
PY
