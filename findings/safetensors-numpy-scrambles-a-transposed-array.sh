#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy.save_file() writes a transposed array's values in another order, without an error.
#
# It stores the bytes of the buffer beneath the array together with the shape of the view. So `weight.T` gets the shape
# of the transpose and the order of the original. Release 0.7.0 copied such an array first and was right; the torch half
# of 0.8.0 refuses a transposed tensor with ValueError. Both docstrings ask for contiguous tensors, only torch checks.
# A weight that goes from [inputs, outputs] to [outputs, inputs], as between ONNX, GGUF and torch, is such a view. The
# file loads well, has the right shape, names and sum, and a model of it talks nonsense.
# Until that is mended: np.ascontiguousarray() around each array.
#
# Seen on CPython 3.11, Linux x86-64, numpy 2.2.6. Fails if that changes. Output seen:
#   safetensors 0.7.0: [[0, 1, 2], [3, 4, 5]] transposed comes back as [[0, 3], [1, 4], [2, 5]]
#   safetensors 0.8.0: [[0, 1, 2], [3, 4, 5]] transposed comes back as [[0, 1], [2, 3], [4, 5]]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > transposed.py <<'PY'
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

weight = np.arange(6).reshape(2, 3)
save_file({"weight": weight.T}, "weight.safetensors")
back = load_file("weight.safetensors")["weight"]
assert back.shape == (3, 2)
print(f"safetensors {safetensors.__version__}: {weight.tolist()} transposed comes back as {back.tolist()}")
PY
python3 -m venv venv
for version in 0.7.0 0.8.0; do
    venv/bin/pip install -q --disable-pip-version-check "safetensors==$version" numpy==2.2.6
    venv/bin/python transposed.py | tee -a seen
done
cat > expected <<'TEXT'
safetensors 0.7.0: [[0, 1, 2], [3, 4, 5]] transposed comes back as [[0, 3], [1, 4], [2, 5]]
safetensors 0.8.0: [[0, 1, 2], [3, 4, 5]] transposed comes back as [[0, 1], [2, 3], [4, 5]]
TEXT
cmp -s seen expected || { echo "changed: the lines above are not those seen" >&2; exit 1; }
