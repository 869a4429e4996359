#!/usr/bin/env bash
# onnxruntime-genai 0.18.0 and tokenizers 0.23.3 read the same tokenizer.json and give other tokens.
#
# onnxruntime-genai's Tokenizer loads the file that its model builder copies beside the graph. Of a byte-level BPE it
# obeys vocabulary, merges, added tokens and regular expressions (Split), and skips in silence the normalizer (NFC,
# Lowercase), the Digits pre-tokenizer and add_prefix_space. Qwen's files have NFC; SmolLM's and StarCoder's have Digits;
# RoBERTa's kind has the prefix space. So a model is trained and measured on one segmentation and served on another: it
# answers a little worse, and mostly for some texts: numbers, capitals, accents typed as two characters (as macOS and
# some keyboards do). Tokenize with `tokenizers` on the board too, and hand over the ids.
#
# Seen on CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   nothing more         tokenizers ['in', ' 2024', '!'], onnxruntime-genai ['in', ' 2024', '!']
#   Digits               tokenizers ['in', ' ', '2', '0', '2', '4', '!'], onnxruntime-genai ['in', ' 2024', '!']
#   Lowercase            tokenizers ['in', ' 2024', '!'], onnxruntime-genai ['I', 'N', ' 2024', '!']
#   NFC                  tokenizers ['café'], onnxruntime-genai ['caf', 'e', '\ufffd', '\ufffd']
#   add_prefix_space     tokenizers [' 2024', '!'], onnxruntime-genai ['202', '4', '!']
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2 tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'PY'
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime_genai
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 300
folder = Path("model")
folder.mkdir()
# onnxruntime-genai opens a tokenizer beside a model only. This one is a table, and is not run.
graph = helper.make_graph(
    [helper.make_node("Gather", ["table", "input_ids"], ["logits"])], "table",
    [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "tokens", VOCABULARY])],
    [numpy_helper.from_array(np.zeros((VOCABULARY, VOCABULARY), np.float32), "table")])
onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), folder / "model.onnx")
decoder = {
    "filename": "model.onnx", "session_options": {"provider_options": []}, "head_size": 1, "hidden_size": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 0,
    "inputs": {"input_ids": "input_ids"}, "outputs": {"logits": "logits"}}
described = {
    "type": "decoder", "vocab_size": VOCABULARY, "context_length": 64, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 0, "decoder": decoder}
(folder / "genai_config.json").write_text(json.dumps({"model": described, "search": {"max_length": 64}}))
(folder / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<end>", "eos_token": "<end>", "unk_token": "<end>"}))

alphabet = pre_tokenizers.ByteLevel.alphabet()
byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
trained = Tokenizer(models.BPE())
trained.pre_tokenizer = byte_level
texts = ["in 2024!", "caf\u00e9"] * 9
trained.train_from_iterator(texts, trainers.BpeTrainer(
    vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False))
trained.decoder = decoders.ByteLevel()


def segments(text, normalizer=None, pre_tokenizer=byte_level):
    """The text's tokens as each library sees them."""
    tokenizer = Tokenizer.from_str(trained.to_str())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.save(str(folder / "tokenizer.json"))
    one = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    other = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(folder))).encode(text)
    return [[tokenizer.decode([int(token)]) for token in ids] for ids in (one, other)]


digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
cases = {
    "nothing more": ("in 2024!", {}),
    "Digits": ("in 2024!", {"pre_tokenizer": digits}),
    "Lowercase": ("IN 2024!", {"normalizer": normalizers.Lowercase()}),
    "NFC": ("cafe\u0301", {"normalizer": normalizers.NFC()}),
    "add_prefix_space": ("2024!", {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)}),
}
same = []
for name, (text, settings) in cases.items():
    one, other = segments(text, **settings)
    print(f"{name:20} tokenizers {one}, onnxruntime-genai {other}")
    same += [name] if one == other else []
assert same == ["nothing more"], f"the same tokens now: {same}"
PY
