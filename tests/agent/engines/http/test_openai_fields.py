"""What the agent itself looks at in a request to a server of others: a wrong number is an answer, never a failure."""

from __future__ import annotations

import json

import pytest

from edgewright_agent.engines.http.openai_fields import CHAT, COMPLETIONS, WrongFieldError, parse_fields


@pytest.mark.parametrize("name", ["temperature", "top_p"])
@pytest.mark.parametrize(
    "value",
    ["1" + "0" * 400, "-1" + "0" * 400, "1e999", "NaN", "true", '"hot"', "[1]", "{}"],
    ids=lambda text: text[:6],
)
def test_what_is_no_number_of_a_sampler_is_named(name: str, value: str) -> None:
    with pytest.raises(WrongFieldError, match=rf"^{name} is ") as raised:
        parse_fields(COMPLETIONS, f'{{"prompt": "x", "{name}": {value}}}'.encode(), "model")
    assert len(str(raised.value)) < 200
    assert raised.value.content["error"]["code"] == "invalid_value"


def test_numbers_and_nulls_pass() -> None:
    body = {"prompt": "x", "temperature": 0, "top_p": 1, "seed": None, "max_tokens": 10**30}
    assert parse_fields(COMPLETIONS, json.dumps(body).encode(), "model") == {
        k: v for k, v in body.items() if v is not None
    }


@pytest.mark.parametrize(
    ("route", "fields"),
    [
        (COMPLETIONS, {"logprobs": 5}),
        (COMPLETIONS, {"logprobs": 0}),
        (CHAT, {"logprobs": True, "top_logprobs": 20}),
        (CHAT, {"logprobs": False}),
    ],
)
def test_log_probabilities_are_counted_in_completions_and_turned_on_in_chats(
    route: str, fields: dict[str, object]
) -> None:
    assert parse_fields(route, json.dumps(fields).encode(), "model") == fields
