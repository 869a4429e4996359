#!/usr/bin/env bash
# GPTQModel 7.6.0 writes "do_sample": true into the generation_config.json of what it saves, also where the model says false.
#
# A model without do_sample, or with do_sample false, answers greedily in transformers' generate(): the same text each
# time. GPTQModel sets do_sample to true when it loads a model, whatever its file says, and saves it so. The 4-bit
# checkpoint therefore samples by default, at temperature 1 where the file names none. Answers of a model and of its
# build then differ by chance and not by what quantizing did, and a check that ran twice the same no longer does. Whoever
# hands the configuration on, as onnxruntime-genai's exporter does, hands that on. No weight is concerned. Put the
# model's own generation_config.json back, or pass do_sample=False.
#
# Seen with transformers 5.24.0, torch 2.13.0, CPython 3.11, Linux x86-64, CPU, a random Llama. Fails if that changes.
# Output seen:
#   do_sample in the model: False, in its 4-bit checkpoint: True
#   the model, asked 5 times: 1 answer by its own configuration, 5 answers by the checkpoint's
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  GPTQModel==7.6.0 transformers==5.24.0 tokenizers==0.23.3 torch==2.13.0
cd "$folder"
export GPTQMODEL_CPU_WORKERS=2  # by default it is 1 on two processors, too few for its own loader
cat > sampling.py <<'PY'
from pathlib import Path

import torch
from gptqmodel import GPTQModel, QuantizeConfig
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, bos_token_id=0, eos_token_id=1,
)
plain = LlamaForCausalLM(config)
plain.generation_config.do_sample = False
plain.save_pretrained("model")
words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(256)}, unk_token="w0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w1", pad_token="w1", unk_token="w0")
tokenizer.save_pretrained("model")
model = GPTQModel.load("model", QuantizeConfig(bits=4, group_size=32), device="cpu")
rows = [{"input_ids": row.tolist(), "attention_mask": [1] * 64} for row in torch.randint(2, 256, (4, 64))]
model.quantize(rows, batch_size=4)
model.save("quantized")

own, saved = (GenerationConfig.from_pretrained(name) for name in ("model", "quantized"))
prompt = torch.arange(5, 13)[None]


def answers(settings):
    """How many different answers the model, never quantized, gives in five tries."""
    tries = [plain.generate(prompt, generation_config=settings, max_new_tokens=16, pad_token_id=1) for _ in range(5)]
    return len({tuple(tokens[0].tolist()) for tokens in tries})


counts = answers(own), answers(saved)
Path("report").write_text(
    f"do_sample in the model: {own.do_sample}, in its 4-bit checkpoint: {saved.do_sample}\n"
    f"the model, asked 5 times: {counts[0]} answer by its own configuration, {counts[1]} answers by the checkpoint's\n")
assert own.do_sample is False and counts[0] == 1
assert saved.do_sample is True and counts[1] > 1, "the model's choice is kept now"
PY
venv/bin/python sampling.py > log 2>&1 || { tail -20 log >&2; exit 1; }
cat report
