"""A server that answers as an OpenAI-compatible API would, and keeps what clients send.

Run with the interpreter alone: it is used while client libraries are recorded (`scripts/record-clients`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXT = '{"answer": "six"}'  # an answer that every scenario takes, JSON output too
# What says how a body travels. All else is dropped: keys, names of machines and systems.
KEPT_HEADERS = ("accept", "content-type", "expect", "transfer-encoding", "connection", "upgrade")
MODEL = {"id": "tiny", "object": "model", "created": 1, "owned_by": "edgewright"}


@contextmanager
def recording() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields the base URL of a server on a free port, and the list of requests that it is sent."""
    requests: list[dict[str, Any]] = []

    class Handler(_Handler):
        kept = requests

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kept: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._keep(None)
        self._send_json({"object": "list", "data": [MODEL]} if self.path.endswith("/models") else MODEL)

    def do_POST(self) -> None:
        body = json.loads(self._body())
        self._keep(body)
        if self.path.endswith("/responses"):
            self._send_stream(_response_events()) if body.get("stream") else self._send_json(_response())
        elif self.path.endswith("/chat/completions"):
            self._send_stream(_chunks()) if body.get("stream") else self._send_json(_completion())
        else:
            self._send_json({"error": {"message": "unknown", "type": "x", "code": "unknown_url"}}, 404)

    def _keep(self, body: Any) -> None:
        headers = {name: self.headers[name] for name in KEPT_HEADERS if name in self.headers}
        self.kept.append({"method": self.command, "path": self.path, "headers": headers, "body": body})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers["content-length"]))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send_json(self, answer: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_stream(self, events: list[bytes]) -> None:
        data = b"".join(events)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Says nothing."""


def _completion() -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny"}
    return head | {"choices": [choice], "usage": usage}


def _chunks() -> list[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}

    def chunk(delta: dict[str, str], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return f"data: {json.dumps(head | {'choices': [choice]})}\n\n".encode()

    return [
        chunk({"role": "assistant", "content": ""}, None),
        chunk({"content": TEXT}, None),
        chunk({}, "stop"),
        b"data: [DONE]\n\n",
    ]


def _response(status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "text": TEXT, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [part]}
    usage = {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }
    done = status == "completed"
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "tiny",
        "output": [message] if done else [], "usage": usage if done else None, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
        "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def _response_events() -> list[bytes]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    done_part = {**part, "text": TEXT}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress")},
        {"type": "response.in_progress", "response": _response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": TEXT, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": done_part},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {**item, "status": "completed", "content": [done_part]},
        },
        {"type": "response.completed", "response": _response()},
    ]
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n".encode()
        for n, event in enumerate(events)
    ]
