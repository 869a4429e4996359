"""A T1 that thinks before it answers is given the room, and its thoughts are no answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.endpoint_client import TEXT, ask, choice
from tests.support.teacher_server import Reply, json_reply, said, teacher_server


def thinking(body: dict[str, Any]) -> Reply:
    """A server that honours `stop` and the limit, in front of a model that thinks before it answers."""
    text = f"<think>\nLet me see.\nWhich one?\n</think>\n\n{TEXT}"
    for word in body.get("stop") or ():
        text = text.split(word)[0]
    limit = 6 * body.get("max_tokens", body.get("max_completion_tokens", 10**6))
    return said(text[:limit], finish_reason="length" if len(text) > limit else "stop")


def thinking_apart(body: dict[str, Any]) -> Reply:
    """The same where the server puts thoughts into a field of their own."""
    if body["max_tokens"] < 100:
        message = {"content": None, "reasoning_content": "Let me see. Which"}
        return json_reply(choice(message, finish_reason="length"))
    return said(TEXT, message={"content": TEXT, "reasoning_content": "Let me see. Which one?"})


@pytest.mark.parametrize("answer", [thinking, thinking_apart])
def test_a_model_that_thinks_is_given_the_room_for_it(answer: Callable[[dict[str, Any]], Reply]) -> None:
    notes: list[str] = []
    with teacher_server(answer) as server:
        answers = ask(server, count=3, max_tokens=9, stop=("\n",), say=notes.append)
        again = len(server.bodies)
        assert [(a.text, a.complete) for a in answers] == [(TEXT, True)] * 3
        assert again <= 6
    assert len(notes) == 1
    assert "thinks" in notes[0]


def test_thoughts_that_never_end_are_no_answer() -> None:
    with teacher_server(lambda _: said("<think>\nWhich one?", finish_reason="length")) as server:
        (answer,) = ask(server)
    assert (answer.text, answer.complete) == ("", False)
