#!/usr/bin/env bash
# transformers 5.24.0: save_pretrained() writes the last call's truncation and padding into tokenizer.json.
#
# tokenizer(text, truncation=True, max_length=16, padding="max_length") sets both on the `tokenizers` object beneath,
# and they stay there until the next call. A tokenizer that is saved after a training batch, as a trainer does, thus
# carries "truncation" and "padding" in its tokenizer.json. transformers sets both anew at each call and shows nothing;
# every other reader of the file, `tokenizers` itself or a server in Rust, cuts each prompt to 16 tokens, and fills each
# shorter one up with padding that its plain list of ids does not tell from text.
# Before saving: call the tokenizer once without options, or tokenizer.backend_tokenizer.no_truncation() and no_padding().
#
# Seen with tokenizers 0.23.3, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   saved before the batch: 100 letters are 100 tokens, 1 letter is 1, in transformers 100 and 1
#   saved after the batch: 100 letters are 16 tokens, 1 letter is 16, in transformers 100 and 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
cat > save.py <<'PY'
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"]
backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
texts = "a" * 100, "a"


def lengths_when_saved(moment):
    tokenizer.save_pretrained(moment)
    plain = Tokenizer.from_file(f"{moment}/tokenizer.json")
    own = PreTrainedTokenizerFast.from_pretrained(moment)
    long, short = (len(plain.encode(text).ids) for text in texts)
    own_long, own_short = (len(own(text).input_ids) for text in texts)
    print(f"saved {moment} the batch: 100 letters are {long} tokens, 1 letter is {short}, "
          f"in transformers {own_long} and {own_short}")
    return long, short, own_long, own_short


assert lengths_when_saved("before") == (100, 1, 100, 1)
tokenizer(["a" * 100, "bc"], truncation=True, max_length=16, padding="max_length")
assert lengths_when_saved("after") == (16, 16, 100, 1), "the batch's settings are no longer saved"
PY
venv/bin/python save.py 2> log || { tail -5 log >&2; exit 1; }
