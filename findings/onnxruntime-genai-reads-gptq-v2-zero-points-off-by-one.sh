#!/usr/bin/env bash
# onnxruntime-genai 0.18.0 exports a GPTQ checkpoint of the format gptq_v2 with every zero point one too high.
#
# A GPTQ checkpoint stores its zero points less one ("checkpoint_format": "gptq", the old habit of AutoGPTQ) or as they
# are ("gptq_v2", which GPTQModel writes on request and other tools read). The model builder adds one in any case and
# never looks at the field. So each weight of a gptq_v2 checkpoint moves by a whole step of its group, and a zero point
# of 15 becomes 0. The export exits 0, and no line names the format.
# Until that is mended: convert the checkpoint to "gptq" first, that is, subtract one from each packed zero point.
#
# Seen with onnxruntime 1.32.0, torch 2.13.0, transformers 5.24.0, CPython 3.11, Linux x86-64, for a random Llama of one
# layer whose zero points are all 8. Fails if that changes. Output seen:
#   gptq: stored 7, exported 8
#   gptq_v2: stored 8, exported 9
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile onnxruntime-genai==0.18.0 onnxruntime==1.32.0 \
  onnx==1.23.2 onnx-ir==1.1.0 torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > checkpoint.py <<'PY'
"""checkpoint.py FORMAT STORED: writes a GPTQ checkpoint to the folder FORMAT, with STORED as each packed zero point."""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

name, stored, group = sys.argv[1], int(sys.argv[2]), 32
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=0)
model = LlamaForCausalLM(config)
shifts = torch.arange(0, 32, 4)
tensors = {key: tensor.clone() for key, tensor in model.state_dict().items() if "proj" not in key}
for key, module in model.named_modules():
    if key.endswith("proj"):
        outputs, inputs = module.weight.shape
        codes = torch.randint(0, 16, (inputs // 8, 8, outputs))
        zeros = torch.full((inputs // group, outputs // 8, 8), stored)
        tensors |= {
            f"{key}.qweight": (codes << shifts[None, :, None]).sum(1).to(torch.int32),
            f"{key}.qzeros": (zeros << shifts).sum(-1).to(torch.int32),
            f"{key}.scales": torch.full((inputs // group, outputs), 0.02, dtype=torch.float16),
            f"{key}.g_idx": torch.arange(inputs, dtype=torch.int32) // group}
folder = Path(name)
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=letters[0]).save_pretrained(folder)
save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
settings = config.to_dict() | {"architectures": ["LlamaForCausalLM"], "quantization_config": {
    "quant_method": "gptq", "bits": 4, "group_size": group, "sym": False, "desc_act": False, "checkpoint_format": name}}
(folder / "config.json").write_text(json.dumps(settings, default=str))
PY
cat > zeros.py <<'PY'
"""zeros.py GRAPH: prints the zero points of the graph's 4-bit products."""
import sys

import onnx
from onnx import numpy_helper

graph = onnx.load(sys.argv[1]).graph
tensors = {tensor.name: tensor for tensor in graph.initializer}
packed = [
    numpy_helper.to_array(tensors[node.input[3]]) for node in graph.node
    if node.op_type == "MatMulNBits" and len(node.input) > 3 and node.input[3].endswith("_proj.MatMulNBits.qzeros")]
assert packed, "no zero points in the graph"
print(*sorted({int(code) for tensor in packed for byte in tensor.reshape(-1) for code in (byte & 15, byte >> 4)}))
PY
exported() {  # FORMAT STORED: exports such a checkpoint, and prints the zero points that come out
    venv/bin/python checkpoint.py "$1" "$2" > log 2>&1 || { tail -5 log >&2; exit 1; }
    GIT_DIR=/dev/null venv/bin/python -m onnxruntime_genai.models.builder -i "$1" -o "$1-onnx" -p int4 -e cpu -c cache \
        > log 2>&1 || { tail -5 log >&2; exit 1; }
    venv/bin/python zeros.py "$1-onnx/model.onnx"
}
old=$(exported gptq 7)
echo "gptq: stored 7, exported $old"
new=$(exported gptq_v2 8)
echo "gptq_v2: stored 8, exported $new"
[ "$old" = 8 ] || { echo "changed: gptq is read otherwise" >&2; exit 1; }
[ "$new" = 9 ] || { echo "changed: gptq_v2 is read otherwise" >&2; exit 1; }
