#!/usr/bin/env bash
# lm-format-enforcer 0.11.3: with "type": ["object", "null"] any object is allowed; properties, required and all are gone.
#
# OpenAI's strict mode asks for an optional value as a list of types: {"type": ["string", "null"], "maxLength": 3}. The
# JsonSchemaParser makes a schema of each type in the list, and of the type alone. So whatever stands beside the list
# holds for no value: the length of a string, the items of an array, the properties of an object. No error, no warning,
# while `enum` beside a list is refused by name, and the same as "anyOf" of two whole schemas, which is what Pydantic
# writes, is obeyed. Text that passed the enforcer then fails at the first json validation, or at a key that is missing.
# Write anyOf. llguidance 1.9.1 obeys both.
#
# Seen on CPython 3.11, Linux x86-64. Fails if that changes. Output seen, what each allows:
#   string:         lm-format-enforcer "abc"; llguidance "abc"
#   string or null: lm-format-enforcer "abc", "abcdef", null; llguidance "abc", null
#   array or null:  lm-format-enforcer [1], ["x", "y", "z"], null; llguidance [1], null
#   object or null: lm-format-enforcer {"a": 1}, {"b": "x"}, null; llguidance {"a": 1}, null
#   anyOf:          lm-format-enforcer {"a": 1}, null; llguidance {"a": 1}, null
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check lm-format-enforcer==0.11.3 llguidance==1.9.1
"$folder/venv/bin/python" - <<'PY'
import json

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from lmformatenforcer import JsonSchemaParser

END = 256


class Bytes:
    """A vocabulary of the 256 bytes and an end."""

    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]
    special_token_ids = [END]
    eos_token_id, bos_token_id = END, None

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))


def with_enforcer(schema, text):
    parser = JsonSchemaParser(schema)
    for letter in text:
        if letter not in parser.get_allowed_characters():
            return False
        parser = parser.add_character(letter)
    return parser.can_end()


def with_llguidance(schema, text):
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    assert not matcher.is_error(), matcher.get_error()
    return matcher.try_consume_tokens(list(text.encode())) == len(text) and matcher.is_accepting()


def allowed(title, schema, values):
    whole = {"type": "object", "properties": {"value": schema}, "required": ["value"], "additionalProperties": False}
    ways = {"lm-format-enforcer": with_enforcer, "llguidance": with_llguidance}
    lists = [[value for value in values if way(whole, json.dumps({"value": value}))] for way in ways.values()]
    shown = (f"{name} {', '.join(map(json.dumps, taken))}" for name, taken in zip(ways, lists))
    print(f"{title + ':':15}", "; ".join(shown))
    return lists


short = {"type": "string", "maxLength": 3}
numbers = {"type": "array", "items": {"type": "integer"}, "maxItems": 2}
keyed = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
null, now = {"type": "null"}, "what stands beside the list is kept now"


def or_null(schema):
    return {**schema, "type": [schema["type"], "null"]}


assert allowed("string", short, ["abc", "abcdef"]) == [["abc"], ["abc"]]
assert allowed("string or null", or_null(short), ["abc", "abcdef", None]) == [["abc", "abcdef", None], ["abc", None]], now
lists = [1], ["x", "y", "z"], None
assert allowed("array or null", or_null(numbers), lists) == [[*lists], [[1], None]], now
objects = {"a": 1}, {"b": "x"}, None
assert allowed("object or null", or_null(keyed), objects) == [[*objects], [{"a": 1}, None]], now
assert allowed("anyOf", {"anyOf": [keyed, null]}, objects) == [[{"a": 1}, None]] * 2
PY
