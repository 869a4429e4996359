#!/usr/bin/env bash
# onnxruntime-genai 0.18.0 exports a Llama with linear or YaRN RoPE scaling without the scaling, and says nothing.
#
# For LlamaForCausalLM the model builder knows one kind of scaling, "llama3", and takes any other for none: the caches of
# cos and sin in the graph are those of the plain model. The same settings in a Qwen2ForCausalLM are obeyed, or the
# export fails. The export exits 0 and no line names the scaling. Each attention score is then another one from the first
# tokens on, not only in long texts: DeepSeek-Coder 1.3B, a common model for small boards, has linear scaling by 4.
# Until that is mended: compare the graph's cos_cache with transformers' rotary embedding, and replace both caches.
#
# Seen with onnxruntime 1.32.0, torch 2.13.0, transformers 5.24.0, CPython 3.11, Linux x86-64, for random models of one
# layer. Fails if that changes. Output seen (an angle is that of the second token's first pair, in radians):
#   LlamaForCausalLM, default: transformers turns by 1.00, the graph by 1.00
#   LlamaForCausalLM, linear: transformers turns by 0.25, the graph by 1.00
#   LlamaForCausalLM, yarn: transformers multiplies cos by 1.14, the graph by 1.00
#   Qwen2ForCausalLM, linear: transformers turns by 0.25, the graph by 0.25
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile onnxruntime-genai==0.18.0 onnxruntime==1.32.0 \
  onnx==1.23.2 onnx-ir==1.1.0 torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > rope.py <<'PY'
import math
import re
import subprocess
import sys

import onnx
import torch
import transformers
from onnx import numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0}
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))


def caches(family, scaling):
    """cos and sin of the first pair at positions 0 and 1: transformers' and the exported graph's."""
    name = f"{family}-{scaling['rope_type']}"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=256, hidden_size=128, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16384, bos_token_id=0, eos_token_id=0,
        rope_parameters={"rope_theta": 10000.0, **scaling})
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    model.save_pretrained(name)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=letters[0]).save_pretrained(name)
    right = [tensor[0, :, 0].tolist() for tensor in model.model.rotary_emb(torch.zeros(1, 1), torch.arange(2)[None])]
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    options = ["-i", name, "-o", f"{name}-onnx", "-p", "fp32", "-e", "cpu", "-c", "cache"]
    export = subprocess.run(builder + options, capture_output=True, text=True)
    printed = export.stdout + export.stderr
    assert export.returncode == 0, printed[-1000:]
    assert not re.search("scaling|yarn", printed.replace(name, ""), re.IGNORECASE), "the export speaks of the scaling now"
    tensors = {tensor.name: tensor for tensor in onnx.load(f"{name}-onnx/model.onnx").graph.initializer}
    graph = [numpy_helper.to_array(tensors[f"{part}_cache"])[:2, 0].tolist() for part in ("cos", "sin")]
    return right, graph


def angles(family, scaling):
    pair = [round(math.atan2(sin[1], cos[1]), 2) for cos, sin in caches(family, scaling)]
    print(f"{family}ForCausalLM, {scaling['rope_type']}: transformers turns by {pair[0]:.2f}, the graph by {pair[1]:.2f}")
    return pair


def factors(family, scaling):
    pair = [round(cos[0], 2) for cos, _ in caches(family, scaling)]
    print(
        f"{family}ForCausalLM, {scaling['rope_type']}: transformers multiplies cos by {pair[0]:.2f}, the graph by {pair[1]:.2f}")
    return pair


assert angles("Llama", {"rope_type": "default"}) == [1, 1]
assert angles("Llama", LINEAR) == [0.25, 1], "a Llama's linear scaling is exported now"
assert factors("Llama", YARN) == [1.14, 1], "a Llama's YaRN is exported now"
assert angles("Qwen2", LINEAR) == [0.25, 0.25]
PY
GIT_DIR=/dev/null venv/bin/python rope.py 2> log || { tail -5 log >&2; exit 1; }
