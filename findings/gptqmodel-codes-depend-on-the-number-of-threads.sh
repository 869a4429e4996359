#!/usr/bin/env bash
# GPTQModel 7.6.0 on a CPU: the same model and calibration give other 4-bit codes with another number of threads.
#
# GPTQ hands the error of each rounded weight on to the weights after it, through the inverse of a Hessian. Sums in
# another order change the Hessian's last bits, and the hand-over makes that into other codes, more so in each layer,
# since the next layer is calibrated on what this one left. The result is as good, but it is another model: a digest of
# a build holds for one number of threads, and an accuracy on a few hundred rows moves by points between two machines.
# With the same number of threads all bits repeat. Fix OMP_NUM_THREADS where a build must come out the same.
#
# A random Llama of four layers, 2,048 random tokens. Seen on CPython 3.11, Linux x86-64, two cores. Output seen (the
# share varies with the processor):
#   one thread, twice: 0.00 % of the codes differ
#   one and two threads: 3.67 % of the codes differ
# Fails if the first is no longer 0, or the second is. Needs two processors.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check GPTQModel==7.6.0 transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
cat > model.py <<'PY'
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1,
)
LlamaForCausalLM(config).save_pretrained("model")
words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(1024)}, unk_token="w0"))
PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w1").save_pretrained("model")
PY
cat > quantize.py <<'PY'
import sys

import torch
from gptqmodel import GPTQModel, QuantizeConfig

torch.manual_seed(1)
rows = [{"input_ids": row.tolist(), "attention_mask": [1] * 256} for row in torch.randint(2, 1024, (8, 256))]
model = GPTQModel.load("model", QuantizeConfig(bits=4, group_size=64), device="cpu")
torch.set_num_threads(int(sys.argv[2]))
model.quantize(rows, batch_size=1)
model.save(sys.argv[1])
PY
cat > compare.py <<'PY'
from pathlib import Path

from safetensors.torch import load_file


def differing(one, other):
    """The share of 4-bit codes that differ."""
    a, b = (load_file(next(Path(name).glob("*.safetensors"))) for name in (one, other))
    pairs = [(a[key], b[key]) for key in a if key.endswith("qweight")]
    wrong = sum(int((((x >> s) & 15) != ((y >> s) & 15)).sum()) for x, y in pairs for s in range(0, 32, 4))
    return wrong / sum(8 * x.numel() for x, _ in pairs)


again, threads = differing("one", "again"), differing("one", "two")
print(f"one thread, twice: {again:.2%} of the codes differ")
print(f"one and two threads: {threads:.2%} of the codes differ")
assert again == 0, "the same settings no longer repeat"
assert threads > 0, "the number of threads no longer matters"
PY
export GPTQMODEL_CPU_WORKERS=2  # by default it is 1 on two processors, too few for its own loader
python="$folder/venv/bin/python"
"$python" model.py > log 2>&1
for run in "one 1" "again 1" "two 2"; do
    set -- $run
    "$python" quantize.py "$1" "$2" >> log 2>&1 || { tail -20 log >&2; exit 1; }
done
"$python" compare.py
