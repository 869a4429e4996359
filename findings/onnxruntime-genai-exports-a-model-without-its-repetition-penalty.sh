#!/usr/bin/env bash
# onnxruntime-genai 0.18.0 exports do_sample, temperature, top_k and top_p of generation_config.json, and no repetition_penalty.
#
# The model builder writes a "search" for genai_config.json. Four of the checkpoint's settings are taken over; for
# repetition_penalty and no_repeat_ngram_size, which have a place in "search" and which the runtime obeys, it looks in
# config.json, where transformers no longer writes them. They become 1.0 and 0. So Qwen2.5's instruct models, whose
# authors ship 1.05 to 1.1, are sampled with their temperature and without the brake on loops that belongs to it; the
# same files in transformers have it. The export exits 0 and prints nothing of it. Write the number into
# genai_config.json by hand.
#
# Seen with onnxruntime 1.32.0, torch 2.13.0, transformers 5.24.0, CPython 3.11, Linux x86-64, for a random Llama of one
# layer. Fails if that changes. Output seen:
#   temperature: generation_config.json 0.7, genai_config.json 0.7
#   top_p: generation_config.json 0.8, genai_config.json 0.8
#   top_k: generation_config.json 20, genai_config.json 20
#   repetition_penalty: generation_config.json 1.1, genai_config.json 1.0
#   no_repeat_ngram_size: generation_config.json 4, genai_config.json 0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile \
  onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2 onnx-ir==1.1.0 transformers==5.24.0 torch==2.13.0 numpy==2.2.6
cd "$folder"
cat > export.py <<'PY'
import json
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
config = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
    bos_token_id=0, eos_token_id=0)
model = LlamaForCausalLM(config)
model.generation_config = GenerationConfig(
    bos_token_id=0, eos_token_id=0, pad_token_id=0, do_sample=True, temperature=0.7, top_p=0.8, top_k=20,
    repetition_penalty=1.1, no_repeat_ngram_size=4)
model.save_pretrained("model")
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=letters[0]).save_pretrained("model")
command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", "model", "-o", "exported", "-p", "fp32"]
export = subprocess.run(
    [*command, "-e", "cpu", "-c", "cache", "--extra_options", "config_only=true"], capture_output=True, text=True)
assert export.returncode == 0, (export.stdout + export.stderr)[-1000:]
assert "repetition" not in export.stdout + export.stderr, "the export speaks of the penalty now"
asked = json.loads(Path("model/generation_config.json").read_text())
search = json.loads(Path("exported/genai_config.json").read_text())["search"]
for name in "temperature", "top_p", "top_k", "repetition_penalty", "no_repeat_ngram_size":
    print(f"{name}: generation_config.json {asked[name]}, genai_config.json {search[name]}")
assert [search[name] for name in ("do_sample", "temperature", "top_p", "top_k")] == [True, 0.7, 0.8, 20]
assert (search["repetition_penalty"], search["no_repeat_ngram_size"]) == (1.0, 0), "the penalties are exported now"
PY
GIT_DIR=/dev/null venv/bin/python export.py 2> log || { tail -5 log >&2; exit 1; }
