"""What a T1 server does not take is asked otherwise or left out, and said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgewright.errors import InputError
from edgewright_builder.data.data_teacher import TeacherSampling
from tests.support.endpoint_client import TEXT, ask, client, sentence
from tests.support.teacher_server import Reply, json_reply, said, teacher_server


def refusing(*names: str, status: int = 400, wording: str = "openai") -> Callable[[dict[str, Any]], Reply]:
    """A server that refuses these fields, in the words of several."""

    def answer(body: dict[str, Any]) -> Reply:
        name = next((name for name in names if name in body), None)
        if name is None:
            return said(TEXT)
        hint = "Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
        errors: dict[str, Any] = {
            "openai": {
                "error": {
                    "message": f"Unsupported parameter: '{name}' is not supported with this model. {hint}",
                    "type": "invalid_request_error", "param": name, "code": "unsupported_parameter",
                }
            },
            "pydantic": {
                "detail": [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]
            },
            "plain": {"message": f"Unrecognized request argument supplied: {name}. {hint}"},
        }  # fmt: skip
        return json_reply(errors[wording], status)

    return answer


@pytest.mark.parametrize("wording", ["openai", "plain"])
def test_max_tokens_becomes_max_completion_tokens_where_the_server_asks_for_it(wording: str) -> None:
    with teacher_server(refusing("max_tokens", wording=wording)) as server:
        made = client(server)
        for _ in range(2):
            made.generate(
                [[{"role": "user", "content": "a"}]], max_tokens=9, sampling=TeacherSampling(), seed=0
            )
    assert [("max_tokens" in body, body.get("max_completion_tokens")) for body in server.bodies] == [
        (True, None), (False, 9), (False, 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wording", "status"), [("openai", 400), ("pydantic", 422), ("plain", 400), ("plain", 422)]
)
@pytest.mark.parametrize("name", ["seed", "stop", "top_p", "temperature"])
def test_a_field_that_the_server_refuses_is_left_out_and_said_once(
    name: str, wording: str, status: int
) -> None:
    notes: list[str] = []
    with teacher_server(refusing(name, wording=wording, status=status)) as server:
        answers = ask(server, count=5, stop=("\n",), say=notes.append)
    assert [answer.text for answer in answers] == [TEXT] * 5
    assert name not in server.bodies[-1]
    assert len(notes) == 1
    assert f"`{name}`" in notes[0]


def test_a_server_that_refuses_several_fields_gets_what_is_left() -> None:
    with teacher_server(refusing("max_tokens", "seed", "temperature", "top_p", "stop")) as server:
        assert ask(server, count=3, stop=("\n",))[0].text == TEXT
    assert set(server.bodies[-1]) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("System role not supported", 400),
        ("Developer instruction is not enabled for models/gemma-3-27b-it", 400),
        ("Conversation roles must alternate user/assistant/user/assistant/...", 400),
        ("1 validation error: the system message is not allowed", 422),
    ],
)
def test_a_server_that_refuses_a_system_turn_gets_it_with_the_first_question(
    message: str, status: int
) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        system = body["messages"][0]["role"] == "system"
        return json_reply({"error": {"message": message, "param": None}}, status) if system else said(TEXT)

    notes: list[str] = []
    chats = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Write {i}."}]
        for i in range(5)
    ]
    with teacher_server(answer) as server:
        made = client(server, say=notes.append)
        for _ in range(2):
            answers = made.generate(chats, max_tokens=9, sampling=TeacherSampling(), seed=0)
    assert [answer.text for answer in answers] == [TEXT] * 5
    assert len(notes) == 1
    assert "system turn" in notes[0]
    last = [body["messages"] for body in server.bodies[-5:]]
    assert sorted(chat[0]["content"] for chat in last) == [f"Be brief.\n\nWrite {i}." for i in range(5)]
    assert {len(chat) for chat in last} == {1}


@pytest.mark.parametrize("roles", [["user"], ["system"], ["system", "system", "user"]])
def test_a_refusal_of_roles_that_joining_the_system_turn_does_not_mend_is_told(roles: list[str]) -> None:
    error = {"error": {"message": "System role not supported: conversation roles must alternate"}}
    chat = [{"role": role, "content": "Write one."} for role in roles]
    with (
        teacher_server(lambda _: json_reply(error, 400)) as server,
        pytest.raises(InputError, match="must alternate"),
    ):
        client(server).generate([chat], max_tokens=9, sampling=TeacherSampling(), seed=0)
    assert len(server.bodies) == 1


def test_a_server_that_refuses_the_model_is_asked_once() -> None:
    error = {"error": {"message": "The model `teacher` does not exist", "code": "model_not_found"}}
    with (
        teacher_server(lambda _: json_reply(error, 404)) as server,
        pytest.raises(InputError, match="does not exist"),
    ):
        ask(server)
    assert len(server.bodies) == 1


def test_a_redirect_names_the_place_it_points_to() -> None:
    reply = Reply(308, (b"",), 0, {"Location": "https://elsewhere.example/v1/chat/completions"})
    with (
        teacher_server(lambda _: reply) as server,
        pytest.raises(InputError, match=r"elsewhere.example") as raised,
    ):
        ask(server)
    assert "endpoint" in sentence(raised.value)
