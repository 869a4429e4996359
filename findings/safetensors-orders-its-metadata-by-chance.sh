#!/usr/bin/env bash
# safetensors 0.8.0: the same tensors with the same metadata give another file each time Python starts.
#
# The header's "__metadata__" is written in the order of a hash table that is seeded anew in each process. The tensors'
# own entries are sorted, and a file without metadata, or with a single entry as transformers writes it, is the same
# byte for byte. From the second entry on, the SHA-256 of an unchanged checkpoint differs between runs: a store by digest
# keeps it twice, a reproducible build is none, and a signature over the file covers one run.
# PYTHONHASHSEED and the order of the dictionary change nothing. Comparing or signing the tensors' bytes, or one entry
# that holds all as JSON, does help.
#
# Seen on CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   8 runs with 1 entry of metadata gave 1 file(s)
#   8 runs with 6 entries of metadata gave 8 file(s)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.2.6
cd "$folder"
cat > save.py <<'PY'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

names = "format base recipe license tokenizer rank".split()[: int(sys.argv[1])]
data = save({"weight": np.zeros(4, np.float32)}, metadata={name: "1" for name in names})
print(hashlib.sha256(data).hexdigest())
PY
files() {  # ENTRIES: how many different files eight runs give
    for _ in 1 2 3 4 5 6 7 8; do PYTHONHASHSEED=0 venv/bin/python save.py "$1"; done | sort -u | wc -l
}
one=$(files 1) six=$(files 6)
echo "8 runs with 1 entry of metadata gave $one file(s)"
echo "8 runs with 6 entries of metadata gave $six file(s)"
[ "$one" = 1 ] || { echo "changed: one entry gives several files" >&2; exit 1; }
[ "$six" -gt 1 ] || { echo "changed: metadata has an order now" >&2; exit 1; }
