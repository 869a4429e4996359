#!/usr/bin/env bash
# xgrammar 0.2.8: `pattern` of a JSON schema must match the whole string, so that "\d" allows one digit and nothing else.
#
# JSON Schema says that a pattern is searched: it "is not implicitly anchored", {"pattern": "\\d"} asks for a digit
# anywhere, and "^ERR-" for a beginning. A model that is bound by xgrammar, vLLM's first choice, writes "7" for the one and
# "ERR-" for the other: valid by the schema, but never a text around it. No warning.
# `jsonschema` for Python accepts the free texts; so does llguidance 1.9.1, the peer that vLLM offers. Pydantic hands
# Field(pattern=…) on as it is, and searches. xgrammar's issue 838 reports it. Write ".*" where more text may stand: both
# readings then agree.
#
# Seen with torch 2.13.0, CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   \d: xgrammar accepts "7"; llguidance accepts "7", "page 7"; jsonschema accepts "7", "page 7"
#   ^ERR-: xgrammar accepts "ERR-"; llguidance accepts "ERR-", "ERR-12 lost"; jsonschema accepts "ERR-", "ERR-12 lost"
#   ^.*\d.*$: xgrammar accepts "7", "page 7"; llguidance accepts "7", "page 7"; jsonschema accepts "7", "page 7"
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.2.6 pydantic==2.14.4 \
    transformers==5.24.0 apache-tvm-ffi==0.1.15.post2 llguidance==1.9.1 jsonschema==4.26.0
# Alone, since its wheel for x86-64 asks for triton, which only a GPU needs.
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps xgrammar==0.2.8
cd "$folder"
venv/bin/python - 2> log <<'PY' || { tail -5 "$folder/log" >&2; exit 1; }
import json

import jsonschema
import xgrammar
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

END = 256


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


def with_xgrammar(schema, value):
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))
    return matcher.accept_string(json.dumps(value)) and matcher.accept_token(END)


def with_llguidance(schema, value):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    assert not matcher.is_error(), matcher.get_error()
    text = json.dumps(value).encode()
    return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()


def with_jsonschema(schema, value):
    return jsonschema.Draft202012Validator(schema).is_valid(value)


WAYS = {"xgrammar": with_xgrammar, "llguidance": with_llguidance, "jsonschema": with_jsonschema}
for pattern, values, by_xgrammar in (
    (r"\d", ["7", "page 7"], 1),
    ("^ERR-", ["ERR-", "ERR-12 lost"], 1),
    (r"^.*\d.*$", ["7", "page 7"], 2),
):
    schema = {"type": "string", "pattern": pattern}
    taken = {name: [value for value in values if way(schema, value)] for name, way in WAYS.items()}
    print(f"{pattern}:", "; ".join(f"{name} accepts {', '.join(map(json.dumps, kept))}" for name, kept in taken.items()))
    assert taken["llguidance"] == taken["jsonschema"] == values, "a peer changed"
    assert taken["xgrammar"] == values[:by_xgrammar], "xgrammar changed"
PY
