"""A data teacher behind HTTP that answers as a test tells it: any status, any body, piece by piece."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STREAM = -1  # a body of unknown length, ended by closing


@dataclass(frozen=True)
class Reply:
    """One answer. `pieces` are sent one after the other; `size` is what Content-Length claims."""

    status: int = 200
    pieces: Iterable[bytes] = (b"",)
    size: int = STREAM
    headers: dict[str, str] = field(default_factory=dict)


def json_reply(value: Any, status: int = 200) -> Reply:
    """A whole JSON body."""
    data = json.dumps(value).encode()
    return Reply(status, (data,), len(data), {"Content-Type": "application/json"})


def said(text: str, **choice: Any) -> Reply:
    """What an ordinary server answers."""
    message = {"role": "assistant", "content": text}
    return json_reply(
        {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"} | choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }
    )


class TeacherServer(ThreadingHTTPServer):
    """Answers each request with `answer(body)` and keeps the bodies."""

    daemon_threads = True

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The part before /chat/completions."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests."""


@contextmanager
def teacher_server(answer: Callable[[dict[str, Any]], Reply]) -> Iterator[TeacherServer]:
    """Runs the server until the block ends."""
    server = TeacherServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: TeacherServer

    def do_POST(self) -> None:
        """Answers as told."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
        reply = self.server.answer(body)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.size != STREAM:
            self.send_header("Content-Length", str(reply.size))
        self.end_headers()
        for piece in reply.pieces:
            self.wfile.write(piece)
            self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on stderr."""
