#!/bin/sh
# onnxruntime-genai's model builder takes any --extra_options, and says nothing of one that it does not know.
#
# Seen with onnxruntime-genai 0.18.0 (CPU wheel, Python 3.11). Older releases and many recipes on the web name the arithmetic
# of 4-bit products `int4_accuracy_level` and the block `int4_block_size`. 0.18 calls them `accuracy_level` and `block_size`.
# With the old names the export exits 0, prints no warning, and writes the default graph, byte for byte: whoever asks for
# float32 products (level 1) gets int8 ones (level 4). A made-up option does the same.
# Expected: an error or a warning that names the unknown option.
#
# Output seen:
#   no option               accuracy_level 4
#   int4_accuracy_level=1   accuracy_level 4, exit 0, the graph is that of no option
#   accuracy_level=1        accuracy_level 1
#   no_such_option=1        accuracy_level 4, exit 0, the graph is that of no option
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/python -m pip install --quiet onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2 onnx-ir==1.1.0 \
    torch==2.13.0 transformers==5.24.0
cat > tiny.py <<'PY'
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=letters[0]).save_pretrained("model")
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=128, bos_token_id=0, eos_token_id=0,
)
LlamaForCausalLM(config).save_pretrained("model")
PY
cat > level.py <<'PY'
import sys

import onnx

graph = onnx.load(sys.argv[1], load_external_data=False).graph
levels = {a.i for n in graph.node if n.op_type == "MatMulNBits" for a in n.attribute if a.name == "accuracy_level"}
print(*sorted(levels))
PY
venv/bin/python tiny.py > /dev/null 2>&1
export_with() {  # NAME [OPTION]: exports to NAME, prints what became of the level
    GIT_DIR=/dev/null venv/bin/python -m onnxruntime_genai.models.builder -i model -o "$1" -p int4 -e cpu -c cache \
        ${2:+--extra_options "$2"} > "$1.log" 2>&1 || { echo "changed: $1 is refused now, exit $?" >&2; exit 1; }
    printf '%-24s accuracy_level %s\n' "${2:-no option}" "$(venv/bin/python level.py "$1/model.onnx")"
}
export_with plain
export_with old int4_accuracy_level=1
export_with new accuracy_level=1
export_with unknown no_such_option=1
[ "$(venv/bin/python level.py new/model.onnx)" = 1 ] || { echo "changed: accuracy_level=1 has no effect" >&2; exit 1; }
for name in old unknown; do
    cmp -s plain/model.onnx "$name/model.onnx" || { echo "changed: $name gives another graph" >&2; exit 1; }
    ! grep -qi "unknown option\|unrecognized\|ignored option\|not a valid" "$name.log" ||
        { echo "changed: $name is warned of" >&2; exit 1; }
done
echo "both unknown options are taken in silence"
