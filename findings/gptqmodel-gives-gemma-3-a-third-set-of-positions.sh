#!/usr/bin/env bash
# GPTQModel 7.6.0 saves a Gemma 3 with two keys too many in the `rope_parameters` of its config.json.
#
# Gemma 3 has two sets of rotary frequencies, and transformers 5 names them after the kinds of layers that use them:
# full_attention and sliding_attention. When GPTQModel loads a model it brings old configurations up to date: where
# `rope_parameters` has no rope_type and no rope_theta of its own, as two sets by kind never have, it adds them. Gemma 3's
# default theta is itself a mapping, {"global": …, "local": …}. So the saved file has a third mapping beside the two, and
# a rope_type "default" above a set that is "linear". transformers looks for the two names alone and computes as before; a
# converter that counts the mappings finds three kinds of layers, and one that looks for rope_type finds no scaling.
# Take `rope_parameters` from the model that was quantized.
#
# Seen on a random Gemma 3 of two layers, CPython 3.11, Linux x86-64, CPU. Fails if that changes. Output seen:
#   before: full_attention, sliding_attention
#   after: full_attention, rope_theta, rope_type, sliding_attention
#   rope_type default, rope_theta {'global': 1000000.0, 'local': 10000.0}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  GPTQModel==7.6.0 transformers==5.24.0 tokenizers==0.23.3 torch==2.13.0
cd "$folder"
export GPTQMODEL_CPU_WORKERS=2  # by default it is 1 on two processors, too few for its own loader
cat > gemma.py <<'PY'
import json
from pathlib import Path

import torch
from gptqmodel import GPTQModel, QuantizeConfig
from tokenizers import Tokenizer, models
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

torch.manual_seed(0)
config = Gemma3TextConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=32, layer_types=["sliding_attention", "full_attention"],
    rope_parameters={
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
)
Gemma3ForCausalLM(config).save_pretrained("model")
words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(256)}, unk_token="w0"))
PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", unk_token="w0").save_pretrained("model")
model = GPTQModel.load("model", QuantizeConfig(bits=4, group_size=32), device="cpu")
rows = [{"input_ids": row.tolist(), "attention_mask": [1] * 64} for row in torch.randint(2, 256, (4, 64))]
model.quantize(rows, batch_size=4)
model.save("quantized")

before, after = (json.loads(Path(name, "config.json").read_text())["rope_parameters"] for name in ("model", "quantized"))
report = [
    f"before: {', '.join(sorted(before))}",
    f"after: {', '.join(sorted(after))}",
    f"rope_type {after.get('rope_type')}, rope_theta {after.get('rope_theta')}",
]
Path("report").write_text("\n".join(report) + "\n")
assert sorted(before) == ["full_attention", "sliding_attention"]
assert all(after[kind] == before[kind] for kind in before)
assert after.get("rope_type") == "default" and isinstance(after.get("rope_theta"), dict), "no keys are added now"
PY
venv/bin/python gemma.py > log 2>&1 || { tail -20 log >&2; exit 1; }
cat report
