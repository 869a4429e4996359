#!/usr/bin/env bash
# pytorch-tokenizers 1.5.0, the tokenizer of ExecuTorch, drops all text that a regular expression of Split does not match.
#
# A tokenizer.json may split text by several steps: DeepSeek's first one is {"type": "Split", "pattern": {"Regex":
# "\\p{N}{1,3}"}, "behavior": "Isolated"}, each group of digits by itself; others isolate line ends so. "Isolated" keeps
# what lies between the matches. HFTokenizer reads `behavior` for a literal pattern only; for a regular expression it
# passes on the matches and nothing else. Such a model gets the digits of its prompt, or the line ends, and no words. No
# error, and the decoded tokens look like a short prompt. Expressions that match everything, as Llama 3's and Qwen's,
# hide it; a behavior that it does not know at all is refused by name ("Unsupported behavior 'MergedWithNext'").
#
# Seen with tokenizers 0.23.3, CPython 3.11, Linux x86-64, for the 256 bytes as vocabulary. Fails if that changes.
# Output seen:
#   all in one expression:    tokenizers 'in 2024\nit is 7', pytorch-tokenizers 'in 2024\nit is 7'
#   digits, then all:         tokenizers 'in 2024\nit is 7', pytorch-tokenizers '20247'
#   line ends:                tokenizers 'in 2024\nit is 7', pytorch-tokenizers '\n'
#   line ends as plain text:  tokenizers 'in 2024\nit is 7', pytorch-tokenizers 'in 2024\nit is 7'
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pytorch-tokenizers==1.5.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
from pytorch_tokenizers.pytorch_tokenizers_cpp import HFTokenizer
from tokenizers import Regex, Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

TEXT = "in 2024\nit is 7"
ALL = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
letters = sorted(ByteLevel.alphabet())
as_bytes = ByteLevel(add_prefix_space=False, use_regex=False)


def texts(title, *patterns):
    """What the tokens of the text say, as `tokenizers` makes them and as pytorch-tokenizers does."""
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = Sequence([*(Split(pattern, "isolated") for pattern in patterns), as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save("tokenizer.json")
    other = HFTokenizer()
    other.load("tokenizer.json")
    pair = [tokenizer.decode(tokens) for tokens in (tokenizer.encode(TEXT).ids, other.encode(TEXT))]
    print(f"{title + ':':25} tokenizers {pair[0]!r}, pytorch-tokenizers {pair[1]!r}")
    return pair


assert texts("all in one expression", Regex(ALL)) == [TEXT, TEXT]
assert texts("digits, then all", Regex(r"\p{N}{1,3}"), Regex(ALL)) == [TEXT, "20247"], "the rest is kept now"
assert texts("line ends", Regex(r"[\r\n]")) == [TEXT, "\n"], "the rest is kept now"
assert texts("line ends as plain text", "\n") == [TEXT, TEXT]
PY
