"""T1 servers as they are: what they answer is understood or told in one sentence, and no wait is without end."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import EdgewrightError, InputError, OutsideError
from edgewright_builder.data.data_teacher import Completion, TeacherSampling
from edgewright_builder.data.served_teacher import EndpointClient
from edgewright_builder.model_server.retries import RetryPolicy
from edgewright_builder.stages.data import generate_data
from tests.builder.data.test_generation import ScriptedTeacher, assignment, silent
from tests.support.teacher_server import Reply, TeacherServer, json_reply, said, teacher_server

MIB = 2**20
USAGE = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
TEXT = "Plants need light."

SOON = RetryPolicy(first_wait_seconds=0.01)


def client(server: TeacherServer, **options: Any) -> EndpointClient:
    return EndpointClient(server.url, "teacher", **{"retries": SOON, **options})


def ask(
    server: TeacherServer, count: int = 1, max_tokens: int = 9, stop: tuple[str, ...] = (), **options: Any
) -> list[Completion]:
    chats = [[{"role": "user", "content": f"Write one {i}."}] for i in range(count)]
    return client(server, **options).generate(
        chats, max_tokens=max_tokens, sampling=TeacherSampling(), seed=0, stop=stop
    )


def sentence(error: EdgewrightError) -> str:
    """The error's text, which is one line without a traceback's marks."""
    text = str(error)
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 600
    return text


def choice(message: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": message} | more], "usage": USAGE}


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


# Bounds


def test_a_server_that_drips_is_given_up_in_time() -> None:
    stop = threading.Event()

    def drip() -> Iterator[bytes]:
        while not stop.wait(0.02):
            yield b" "

    try:
        with (
            teacher_server(lambda _: Reply(200, drip())) as server,
            pytest.raises(OutsideError, match=r"no whole answer within 0.3 s") as raised,
        ):
            ask(server, retries=RetryPolicy(2, 0.01), timeout_seconds=0.3)
        assert "--resume" in sentence(raised.value)
        assert len(server.bodies) == 2
    finally:
        stop.set()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    stop = threading.Event()

    def silence() -> Iterator[bytes]:
        stop.wait(30)
        yield b""

    try:
        with (
            teacher_server(lambda _: Reply(200, silence())) as server,
            pytest.raises(OutsideError, match=r"no whole answer within 0.3 s"),
        ):
            ask(server, retries=RetryPolicy(1, 0.01), timeout_seconds=0.3)
    finally:
        stop.set()


def test_an_answer_of_400_mb_is_given_up_at_once_and_never_held() -> None:
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        while sent < 400 * MIB:
            sent += MIB
            yield b" " * MIB

    with teacher_server(lambda _: Reply(200, flood(), 400 * MIB)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(OutsideError, match=r"more than 8.0 MiB") as raised:
                ask(server)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert "--resume" in sentence(raised.value)
    assert len(server.bodies) == 1
    assert sent < 100 * MIB
    assert peak_bytes < 64 * MIB


# What a server does not take


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


# Models that think


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


# What can be known before anything is sent


@pytest.mark.parametrize("endpoint", ["localhost:8000/v1", "ftp://host/v1", "http://", "http:///v1"])
def test_an_endpoint_that_is_no_address_is_refused_by_the_recipe(endpoint: str, tmp_path: Path) -> None:
    from edgewright_builder.recipe.model_recipe import DataTeacher

    with pytest.raises(ValueError, match="http://HOST"):
        DataTeacher(model="m", endpoint=endpoint)


def test_a_key_of_more_than_one_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with teacher_server(lambda _: said(TEXT)) as server:
        monkeypatch.setenv("TEACHER_KEY", "k1\n")
        assert ask(server, api_key_variable="TEACHER_KEY")[0].text == TEXT
        monkeypatch.setenv("TEACHER_KEY", "k1\nk2")
        with pytest.raises(InputError, match="TEACHER_KEY"):
            ask(server, api_key_variable="TEACHER_KEY")


# A whole generation


def writer(body: dict[str, Any]) -> Reply:
    """A server that does well at every step."""
    teacher = ScriptedTeacher()
    prompt = body["messages"][-1]["content"]
    return said("4" if "Score from 1 to 5" in prompt else teacher._text(prompt, body["seed"]))


def test_a_generation_whose_server_went_away_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted = assignment(pairs=12, batch_size=4)
    with teacher_server(writer) as server:
        whole = generate_data(client(server), wanted, tmp_path / "whole", silent)
        asked_for_all = len(server.bodies)
        server.answer = lambda body: writer(body) if len(server.bodies) < asked_for_all + 30 else Reply(503)
        with pytest.raises(OutsideError, match="--resume"):
            generate_data(client(server, retries=RetryPolicy(1, 0.01)), wanted, tmp_path / "again", silent)
        server.answer, server.bodies = writer, []
        again = generate_data(client(server), wanted, tmp_path / "again", silent)
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert 0 < len(server.bodies) < asked_for_all


@pytest.mark.parametrize("text", ["", "I can only talk about cars."])
def test_a_server_of_no_use_is_left_after_the_first_batch_and_its_text_is_shown(
    tmp_path: Path, text: str
) -> None:
    with (
        teacher_server(lambda _: said(text, finish_reason="content_filter")) as server,
        pytest.raises(InputError, match="left no pair") as raised,
    ):
        generate_data(client(server), assignment(pairs=60, batch_size=8), tmp_path, silent)
    assert (text or "content_filter") in sentence(raised.value)
    assert len(server.bodies) == 20 + 8  # the topics of 20 key phrases, one batch of questions
