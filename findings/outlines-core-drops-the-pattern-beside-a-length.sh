#!/usr/bin/env bash
# outlines_core 0.2.14: a string's `pattern` is dropped where the schema has minLength or maxLength too.
#
# build_regex_from_schema() takes the first of: length, pattern, format. With {"pattern": "^[a-z]*$", "maxLength": 8},
# which is what Pydantic writes for constr(pattern=…, max_length=…), the regular expression allows any eight characters.
# Nothing warns; each keyword alone is obeyed. `format` beside a length is dropped likewise. llguidance 1.9.1, the peer
# that vLLM and llama.cpp offer for the same schemas, obeys both, and refuses by name what it can't obey.
#
# Seen on CPython 3.11, Linux x86-64. Fails if that changes. Output seen:
#   pattern: outlines_core accepts abc; llguidance accepts abc
#   pattern and maxLength: outlines_core accepts abc, A?; llguidance accepts abc
#   format: outlines_core accepts 2026-01-31; llguidance accepts 2026-01-31
#   format and maxLength: outlines_core accepts 2026-01-31, soon; llguidance accepts 2026-01-31
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check outlines_core==0.2.14 llguidance==1.9.1
"$folder/venv/bin/python" - <<'PY'
import json
import re

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from outlines_core.json_schema import build_regex_from_schema

END = 256


class Bytes:
    """A vocabulary of the 256 bytes and an end."""

    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]
    special_token_ids = [END]
    eos_token_id, bos_token_id = END, None

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))


def with_outlines(schema, text):
    return re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None


def with_llguidance(schema, text):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    assert not matcher.is_error(), matcher.get_error()
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


def accepted(title, schema, values):
    schema = {"type": "string", **schema}
    ways = {"outlines_core": with_outlines, "llguidance": with_llguidance}
    lists = {name: [value for value in values if way(schema, json.dumps(value))] for name, way in ways.items()}
    print(f"{title}:", "; ".join(f"{name} accepts {', '.join(taken)}" for name, taken in lists.items()))
    return lists["outlines_core"], lists["llguidance"]


word, day = {"pattern": "^[a-z]*$"}, {"format": "date"}
words, days = ["abc", "A?"], ["2026-01-31", "soon"]
assert accepted("pattern", word, words) == (["abc"], ["abc"])
assert accepted("pattern and maxLength", word | {"maxLength": 20}, words) == (words, ["abc"]), "the pattern is kept now"
assert accepted("format", day, days) == (["2026-01-31"], ["2026-01-31"])
assert accepted("format and maxLength", day | {"maxLength": 20}, days) == (days, ["2026-01-31"]), "the format is kept now"
PY
