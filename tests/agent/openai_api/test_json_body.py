"""Bodies of too many JSON values are refused before they are parsed, whatever stands in their strings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from edgewright_agent.openai_api.http.errors import ApiError
from edgewright_agent.openai_api.http.json_body import read_json


class Anything(BaseModel):
    model_config = ConfigDict(extra="ignore")


TEXTS = st.text(st.sampled_from('",[{\\a}]:'), max_size=6)
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def separators(value: Any) -> int:
    """Commas and opening brackets of the value's JSON, but for those inside strings."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(separators, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(separators, value))
    return 0


def is_refused(body: bytes, values_max: int) -> bool:
    try:
        read_json(Anything, body, values_max)
    except ApiError as error:
        return error.status == 413
    return False


@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.booleans())
def test_what_stands_in_strings_does_not_count(document: dict[str, Any], ascii_only: bool) -> None:
    body, count = json.dumps(document, ensure_ascii=ascii_only).encode(), separators(document)
    assert not is_refused(body, count)
    quotes = json.dumps(document).replace("\\\\", "").replace('\\"', "").count('"')
    if count and quotes <= 4 * (
        count - 1
    ):  # a body of more strings than values could have may be refused unread
        assert is_refused(body, count - 1)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"messages": [{"role": "user", "content": "hi"}] * 1000}).encode(),
        json.dumps({"prompt": ["a, b"] * 2000}).encode(),
        b'{"prompt":' + b"[]," * 2000,
        b'{"prompt":' + b'["",' * 2000,
    ],
    ids=["messages", "texts", "brackets", "nested"],
)
def test_a_body_of_too_many_values_is_refused(body: bytes) -> None:
    assert is_refused(body, 1000)
