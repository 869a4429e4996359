#!/usr/bin/env bash
# pytorch-tokenizers 1.5.0, the tokenizer of ExecuTorch: skip_special_tokens also skips <think> and <tool_call>.
#
# tokenizer.json has a list of added tokens, each with "special": true or false. Qwen3's <think> and <tool_call> are
# false: marks that stand in the text and that a program looks for in the answer, while <|im_end|> is true and is to be
# left out. In `tokenizers`, skip_special_tokens leaves out the special ones. HFTokenizer reads the list without that
# field, and leaves out all of it. The answer then begins with the reasoning as if it were the answer, and a tool call
# comes out as bare JSON that no parser recognizes. Decode without skip_special_tokens, and take the end marks away by
# their ids.
#
# Seen with tokenizers 0.23.3, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   all tokens:         '<think>hm</think>ok<tool_call>{}</tool_call><|im_end|>'
#   tokenizers:         '<think>hm</think>ok<tool_call>{}</tool_call>'
#   pytorch-tokenizers: 'hmok{}'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pytorch-tokenizers==1.5.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
from pytorch_tokenizers.pytorch_tokenizers_cpp import HFTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

ANSWER = "<think>hm</think>ok<tool_call>{}</tool_call>"
letters = {letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}
tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
marks = "<think>", "</think>", "<tool_call>", "</tool_call>"
tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
tokenizer.save("tokenizer.json")
other = HFTokenizer()
other.load("tokenizer.json")

tokens = tokenizer.encode(ANSWER + "<|im_end|>").ids
assert other.encode(ANSWER + "<|im_end|>") == tokens


def with_pytorch(skip):
    """The text of the tokens; each is decoded by itself, as HFTokenizer does it in Python."""
    return "".join(other.decode(token, skip_special_tokens=skip) for token in tokens)


whole, one, skipped = with_pytorch(False), tokenizer.decode(tokens, skip_special_tokens=True), with_pytorch(True)
print(f"all tokens:         {whole!r}\ntokenizers:         {one!r}\npytorch-tokenizers: {skipped!r}")
assert whole == ANSWER + "<|im_end|>" and one == ANSWER
assert skipped == "hmok{}", "the marks are kept now"
PY
