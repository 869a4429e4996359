#!/usr/bin/env bash
# xgrammar 0.2.8: a string with minLength or maxLength can hold no line break, no quotation mark and no backslash.
#
# JSON writes these three as escapes: \n, \" and \\. A {"type": "string"} may have them. With {"maxLength": 200} beside it,
# which is what Pydantic writes for Field(max_length=200) and what keeps a small model from running on, the grammar
# counts bare characters and has no escape at all. A model that wants to quote has only the " that ends the string: the
# answer is valid JSON and stops in the middle of a sentence; a program or a list in a string becomes one line. No
# warning, though others of its limits have one. llguidance 1.9.1, the peer that vLLM offers for the same schemas, takes
# escapes with a length, each as one character. xgrammar's issue 800 reports it. Limit the number of tokens instead.
#
# Seen with torch 2.13.0, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   a string: xgrammar accepts "no", "two\nlines", "say \"no\"", "C:\\x"; llguidance the same
#   a string of at most 200: xgrammar accepts "no"; llguidance accepts "no", "two\nlines", "say \"no\"", "C:\\x"
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.2.6 pydantic==2.14.4 \
    transformers==5.24.0 apache-tvm-ffi==0.1.15.post2 llguidance==1.9.1
# Alone, since its wheel for x86-64 asks for triton, which only a GPU needs.
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps xgrammar==0.2.8
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import json

import xgrammar
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

END = 256
TEXTS = ["no", "two\nlines", 'say "no"', "C:\\x"]


class Bytes:
    """A vocabulary of the 256 bytes and an end."""

    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]
    special_token_ids = [END]
    eos_token_id, bos_token_id = END, None

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


vocabulary = xgrammar.TokenizerInfo(Bytes.tokens, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[END])
compiler = xgrammar.GrammarCompiler(vocabulary, max_threads=1)
tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))


def with_xgrammar(schema, text):
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(schema))
    return matcher.accept_string(text) and matcher.accept_token(END)


def with_llguidance(schema, text):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema))
    assert not matcher.is_error(), matcher.get_error()
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


def accepted(way, schema):
    return [text for text in map(json.dumps, TEXTS) if way(json.dumps(schema), text)]


every = [json.dumps(text) for text in TEXTS]
for title, limits, expected in ("a string", {}, every), ("a string of at most 200", {"maxLength": 200}, every[:1]):
    schema = {"type": "string", **limits}
    taken, by_peer = accepted(with_xgrammar, schema), accepted(with_llguidance, schema)
    peer = "the same" if by_peer == taken else f"accepts {', '.join(by_peer)}"
    print(f"{title}: xgrammar accepts {', '.join(taken)}; llguidance {peer}")
    assert by_peer == every, "llguidance changed"
    assert taken == expected, "xgrammar changed"
PY
