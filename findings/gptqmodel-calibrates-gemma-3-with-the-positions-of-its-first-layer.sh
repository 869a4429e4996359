#!/usr/bin/env bash
# GPTQModel 7.6.0 calibrates every layer of a Gemma 3 with the rotary positions of the first.
#
# Gemma 3 has two sets of rotary frequencies: one for layers that see a window, one for those that see everything.
# transformers hands each layer the cosines and sines of its kind. GPTQModel records what the first layer is called with,
# and calls all of them with that. The first layer sees a window; so in calibration the layers that see everything turn
# by angles that they never meet in use, and what they say is what the layers after them are calibrated on. Nothing is
# reported, and the saved model is worse. Give each such layer its own `position_embeddings` in a forward pre-hook.
#
# Seen on a random Gemma 3 of four layers, CPython 3.11, Linux x86-64, CPU. Fails if that changes. Output seen (a cosine
# of the sixth position, by layer):
#   the model calls its layers with    0.63008 0.93053 0.63008 0.93053
#   calibration calls its layers with  0.63008 0.63008 0.63008 0.63008
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  GPTQModel==7.6.0 transformers==5.24.0 tokenizers==0.23.3 torch==2.13.0
cd "$folder"
export GPTQMODEL_CPU_WORKERS=2  # by default it is 1 on two processors, too few for its own loader
cat > gemma.py <<'PY'
from pathlib import Path

import torch
from gptqmodel import GPTQModel, QuantizeConfig
from tokenizers import Tokenizer, models
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast


def record_cosines(layers):
    """Returns a list of sets, filled while the layers are called."""
    cosines = [set() for _ in layers]
    for layer, seen in zip(layers, cosines):

        def hook(_layer, _arguments, keywords, seen=seen):
            seen.add(round(float(keywords["position_embeddings"][0][0, 5, 3]), 5))

        layer.register_forward_pre_hook(hook, with_kwargs=True)
    return cosines


torch.manual_seed(0)
kinds = ["sliding_attention", "full_attention"]
config = Gemma3TextConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=2,
    num_key_value_heads=1, head_dim=32, layer_types=2 * kinds,
    rope_parameters={
        kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in zip(kinds, (1e4, 1e6))
    },
)
plain = Gemma3ForCausalLM(config)
plain.save_pretrained("model")
words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(256)}, unk_token="w0"))
PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", unk_token="w0").save_pretrained("model")
rows = torch.randint(2, 256, (4, 64))

of_model = record_cosines(plain.model.layers)
plain(rows[:1])

model = GPTQModel.load("model", QuantizeConfig(bits=4, group_size=32), device="cpu", dtype=torch.float32)
of_calibration = record_cosines(model.model.model.layers)
model.quantize([{"input_ids": row.tolist(), "attention_mask": [1] * 64} for row in rows], batch_size=4)

text = [" ".join(str(value) for seen in cosines for value in sorted(seen)) for cosines in (of_model, of_calibration)]
Path("report").write_text(
    f"the model calls its layers with    {text[0]}\ncalibration calls its layers with  {text[1]}\n"
)
assert of_model[0] != of_model[1]
assert all(seen == of_model[0] for seen in of_calibration), "each layer has its own positions now"
PY
venv/bin/python gemma.py > log 2>&1 || { tail -20 log >&2; exit 1; }
cat report
