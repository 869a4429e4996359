"""How many values a JSON text holds is known before any of them is built."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.engine_worker.requests.json_size import count_values

MANY = 10**6
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.sampled_from('a,[{":\\\n')),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
)


def values(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values, inner))


@given(JSON)
def test_a_count_is_never_below_the_values_and_commas_in_strings_do_not_add_to_it(value: Any) -> None:
    data = json.dumps(value).encode()
    brackets = sum(1 for part in json.dumps(value) if part in "[{")
    assert values(value) <= count_values(data, MANY)
    # Where it matters strings are passed over; an empty object or array counts one too many.
    enough = values(value) + brackets
    assert count_values(data, enough) <= enough


@given(st.binary() | st.lists(st.sampled_from([b'"', b"\\", b",", b"[", b"x"]), max_size=60).map(b"".join))
def test_any_bytes_are_counted_up_to_one_above_the_limit(data: bytes) -> None:
    assert 1 <= count_values(data, 5) <= 6


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 10**6,  # a string that never ends
        b'"' + b"\\" * 10**6,
        b'{"a":"' + b"x" * 4 * 10**6,
        b'"a"' * 10**6,
        b'"' * 10**6,
    ],
)
def test_text_that_is_no_json_is_counted_in_one_pass(data: bytes) -> None:
    assert count_values(data, 3) <= 4


def test_counting_ends_soon_after_the_most_that_is_asked_for() -> None:
    assert count_values(b"[" + b"0," * 10**6, 1000) == 1001
