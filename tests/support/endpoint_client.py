"""Asks a T1 server through the client that a build asks it with, with waits that a test can bear."""

from __future__ import annotations

from typing import Any

from edgewright.errors import EdgewrightError
from edgewright_builder.data.data_teacher import Completion, TeacherSampling
from edgewright_builder.data.served_teacher import EndpointClient
from edgewright_builder.model_server.retries import RetryPolicy
from tests.support.teacher_server import TeacherServer

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
