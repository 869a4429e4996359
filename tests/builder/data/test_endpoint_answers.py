"""What T1's servers answer is understood, and what is no answer is told in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgewright.errors import OutsideError
from edgewright_builder.model_server.retries import RetryPolicy
from tests.support.endpoint_client import TEXT, USAGE, ask, choice, sentence
from tests.support.teacher_server import Reply, json_reply, said, teacher_server

UNDERSTOOD: dict[str, tuple[dict[str, Any], str]] = {
    "message is null": (choice(None), ""),
    "choice is empty": ({"choices": [{}], "usage": USAGE}, ""),
    "choice is null": ({"choices": [None], "usage": USAGE}, ""),
    "content is null": (choice({"content": None}), ""),
    "a refusal": (choice({"content": None, "refusal": "I can't help with that."}), ""),
    "content in parts": (choice({"content": [{"type": "text", "text": TEXT}]}), TEXT),
    "content in several parts": (
        choice({"content": [{"type": "text", "text": "Plants "}, {"type": "text", "text": "need light."}]}),
        TEXT,
    ),
    "parts with thoughts": (
        choice(
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                         {"type": "text", "text": TEXT}]}
        ),
        TEXT,
    ),
    "a part without text": (choice({"content": [{"type": "image_url"}, TEXT]}), TEXT),
    "count of tokens is null": (choice({"content": TEXT}) | {"usage": {"completion_tokens": None}}, TEXT),
    "usage is null": (choice({"content": TEXT}) | {"usage": None}, TEXT),
    "usage is a list": (choice({"content": TEXT}) | {"usage": []}, TEXT),
    "count of tokens is a text": (choice({"content": TEXT}) | {"usage": {"completion_tokens": "many"}}, TEXT),
    "count of tokens is negative": (choice({"content": TEXT}) | {"usage": {"completion_tokens": -1}}, TEXT),
    "count of tokens is a fraction": (choice({"content": TEXT}) | {"usage": {"completion_tokens": 9.5}}, TEXT),
    "thoughts in the content": (choice({"content": f"<think>\nWhich one?\n</think>\n\n{TEXT}"}), TEXT),
    "thoughts in a field of their own": (choice({"content": TEXT, "reasoning_content": "Which one?"}), TEXT),
    "thoughts whose beginning is in the prompt": (choice({"content": f"Which one?\n</think>\n\n{TEXT}"}), TEXT),
    "thoughts under another name": (choice({"content": f"<thinking>Which?</thinking>{TEXT}"}), TEXT),
    "thoughts in brackets": (choice({"content": f"[THINK]Which?[/THINK]{TEXT}"}), TEXT),
    "thoughts in a channel": (
        choice(
            {"content": "<|channel|>analysis<|message|>Which?<|end|><|start|>assistant<|channel|>final<|message|>"
             + TEXT}
        ),
        TEXT,
    ),
    "text as completions have it": ({"choices": [{"text": TEXT}], "usage": USAGE}, TEXT),
    "half a character": (choice({"content": f"{TEXT}\ud83d"}), f"{TEXT}?"),
    "no reason to finish": (choice({"content": TEXT}, finish_reason=None), TEXT),
}  # fmt: skip


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_what_real_servers_answer_is_understood(case: str) -> None:
    answer, expected = UNDERSTOOD[case]
    with teacher_server(lambda _: json_reply(answer)) as server:
        (completion,) = ask(server)
    assert completion.text == expected
    assert completion.tokens >= 0
    json.dumps(completion.text, ensure_ascii=False).encode()  # as the journal writes it


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "model_length", "content_filter", "error"])
def test_an_answer_that_the_server_cut_off_is_not_taken_for_a_whole_one(reason: str) -> None:
    with teacher_server(lambda _: said(TEXT, finish_reason=reason)) as server:
        (answer,) = ask(server)
    assert (answer.text, answer.complete) == (TEXT, False)


UNREADABLE: dict[str, bytes] = {
    "no choices": b'{"choices": []}',
    "choices are null": b'{"choices": null}',
    "choices are a text": b'{"choices": "none"}',
    "an error with status 200": b'{"error": {"message": "The provider is overloaded", "code": 502}}',
    "a list": b"[]",
    "a text": b'"hello"',
    "a page": b"<html><body>Sign in</body></html>",
    "nothing": b"",
    "half a body": b'{"choices": [{"message": {"con',
    "no UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
    "brackets without end": b"[" * 200_000,
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_answer_is_one_sentence_that_says_how_to_go_on(case: str) -> None:
    body = UNREADABLE[case]
    with (
        teacher_server(lambda _: Reply(200, (body,), len(body))) as server,
        pytest.raises(OutsideError) as raised,
    ):
        ask(server, retries=RetryPolicy(2, 0.01))
    text = sentence(raised.value)
    assert server.url in text
    assert "--resume" in text
    if case == "an error with status 200":
        assert "The provider is overloaded" in text


def test_an_answer_shorter_than_it_claims_is_tried_again() -> None:
    replies = iter([Reply(200, (b'{"choices"',), 500), said(TEXT)])
    with teacher_server(lambda _: next(replies)) as server:
        assert ask(server)[0].text == TEXT
