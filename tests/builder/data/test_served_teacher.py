"""T1 behind an endpoint, against a real HTTP server that fails the way servers do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edgewright.errors import InputError, OutsideError
from edgewright_builder.data.data_teacher import Rating, TeacherSampling
from edgewright_builder.data.served_teacher import EndpointClient
from edgewright_builder.model_server.retries import RetryPolicy

SOON = RetryPolicy(first_wait_seconds=0.01)


class FakeServer(ThreadingHTTPServer):
    """Answers chat completions with the prompt in capitals; `faults` are the statuses of the first requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: str | None = None
        self.running = self.most_running = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.running += 1
            self.server.most_running = max(self.server.most_running, self.server.running)
            self.server.bodies.append(body)
            self.server.keys.append(self.headers.get("Authorization"))
            status = self.server.faults.pop(0) if self.server.faults else 200
        threading.Event().wait(0.02)
        text = self.server.reply or body["messages"][-1]["content"].upper()
        answer = {
            "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"completion_tokens": 3},
        }
        data = json.dumps(answer if status == 200 else {"error": "no"}).encode()
        with self.server.lock:
            self.server.running -= 1
        if status == 0:  # the connection is lost
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on stderr."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def client(server: FakeServer, **options: Any) -> EndpointClient:
    return EndpointClient(server.url, "teacher", **{"retries": SOON, **options})


def chats(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_answers_come_in_the_order_of_the_chats_with_the_sampling_asked_for(server: FakeServer) -> None:
    texts = [f"prompt {i}" for i in range(20)]
    answers = client(server).generate(chats(*texts), max_tokens=9, sampling=TeacherSampling(), seed=5)
    assert [answer.text for answer in answers] == [text.upper() for text in texts]
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in server.bodies} == {
        (0.7, 0.95, 9)
    }
    assert {body["seed"] for body in server.bodies} == set(range(5, 25))
    assert all(answer.tokens == 3 and answer.complete for answer in answers)


def test_no_more_requests_than_allowed_run_at_once(server: FakeServer) -> None:
    client(server, concurrency=3).generate(
        chats(*"abcdefghij"), max_tokens=9, sampling=TeacherSampling(), seed=0
    )
    assert server.most_running <= 3


@pytest.mark.parametrize("fault", [429, 500, 503, 0])
def test_faults_that_may_pass_are_tried_again(fault: int, server: FakeServer) -> None:
    server.faults = [fault, fault]
    (answer,) = client(server).generate(chats("hello"), max_tokens=9, sampling=TeacherSampling(), seed=0)
    assert answer.text == "HELLO"
    assert len(server.bodies) == 3


def test_a_server_that_stays_down_is_an_outside_error_that_says_how_to_go_on(server: FakeServer) -> None:
    server.faults = [503] * 3
    with pytest.raises(OutsideError, match=r"failed 3 times, the last time with HTTP 503.*--resume to go on"):
        client(server, retries=RetryPolicy(3, 0.01)).generate(
            chats("hello"), max_tokens=9, sampling=TeacherSampling(), seed=0
        )


def test_a_refused_request_is_not_repeated(server: FakeServer) -> None:
    server.faults = [401]
    with pytest.raises(InputError, match="refused model 'teacher': HTTP 401"):
        client(server).generate(chats("hello"), max_tokens=9, sampling=TeacherSampling(), seed=0)
    assert len(server.bodies) == 1


def test_the_key_comes_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "k1")
    client(server, api_key_variable="TEACHER_KEY").generate(
        chats("a"), max_tokens=1, sampling=TeacherSampling(), seed=0
    )
    assert server.keys == ["Bearer k1"]


def test_text_after_a_stop_string_is_cut_even_if_the_server_does_not(server: FakeServer) -> None:
    server.reply = "one line\nanother"
    (answer,) = client(server).generate(
        chats("a"), max_tokens=9, sampling=TeacherSampling(), seed=0, stop=("\n",)
    )
    assert answer.text == "one line"
    assert server.bodies[0]["stop"] == ["\n"]


def test_ratings_are_greedy_and_none_without_a_score(server: FakeServer) -> None:
    server.reply = "Score: 4"
    assert client(server).rate(chats("a"), seed=0) == [Rating(4.0, "Score: 4")]
    assert server.bodies[0]["temperature"] == 0.0
    server.reply = "good"
    assert client(server).rate(chats("a"), seed=0) == [Rating(None, "good")]


def test_relevance_of_an_endpoint_is_refused_with_the_way_out(server: FakeServer) -> None:
    with pytest.raises(InputError, match="use critic 'rubric'"):
        client(server).relevance([("q", "a")])
