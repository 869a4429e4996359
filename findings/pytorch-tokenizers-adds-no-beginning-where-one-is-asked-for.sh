#!/usr/bin/env bash
# pytorch-tokenizers 1.5.0, the tokenizer of ExecuTorch: encode(text, bos=1) adds no beginning token, and eos=1 may add one.
#
# Its header documents both as numbers: how many beginning tokens to put before the text, how many end tokens after it.
# HFTokenizer takes either for a switch: any number above 0 runs the template of tokenizer.json's post_processor. Where
# it has no template, as in Qwen's and most byte-level files, bos=1 adds nothing, though tokenizer_config.json names
# the token and bos_tok() returns it. Where there is one, as in Llama 3's, eos=1 puts the beginning token first and no
# end. So a runner that scores texts gets them without the ends it asked for: no error, and the ids of
# words are right. Add bos_tok() and eos_tok() to the list by hand.
#
# Seen with tokenizers 0.23.3, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   no template:      bos=1 gives a; eos=1 gives a; bos_tok() is <begin>, eos_tok() is <end>
#   <begin> $A:       bos=1 gives <begin> a; eos=1 gives <begin> a
#   <begin> $A <end>: bos=1 gives <begin> a <end>; eos=1 gives <begin> a <end>
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pytorch-tokenizers==1.5.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import json
from pathlib import Path

from pytorch_tokenizers.pytorch_tokenizers_cpp import HFTokenizer
from tokenizers import Tokenizer, models, processors
from tokenizers.pre_tokenizers import ByteLevel

ENDS = ["<begin>", "<end>"]
Path("model").mkdir()
Path("model/tokenizer_config.json").write_text(json.dumps({"bos_token": ENDS[0], "eos_token": ENDS[1]}))


def encoded(template):
    """The tokens of "a" with bos=1 and with eos=1, and the names of bos_tok() and eos_tok()."""
    letters = {letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(ENDS)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # as Qwen's file has it
    if template:
        ids = [(end, tokenizer.token_to_id(end)) for end in ENDS]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, pair=f"{template} $B", special_tokens=ids)
    tokenizer.save("model/tokenizer.json")
    other = HFTokenizer()
    other.load("model")
    lists = [other.encode("a", bos=1), other.encode("a", eos=1)]
    asked = [" ".join(map(tokenizer.id_to_token, tokens)) for tokens in lists]
    ends = [tokenizer.id_to_token(token) for token in (other.bos_tok(), other.eos_tok())]
    assert ends == ENDS, ends
    told = "" if template else f"; bos_tok() is {ends[0]}, eos_tok() is {ends[1]}"
    print(f"{(template or 'no template') + ':':17} bos=1 gives {asked[0]}; eos=1 gives {asked[1]}{told}")
    return asked


assert encoded("") == ["a", "a"], "the numbers are obeyed now"
assert encoded("<begin> $A") == ["<begin> a"] * 2, "the numbers are obeyed now"
assert encoded("<begin> $A <end>") == ["<begin> a <end>"] * 2, "the numbers are obeyed now"
PY
