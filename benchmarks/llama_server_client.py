"""A bare llama-server as a peer of `serving_llama.py`: `llama_server_client.py SOCKET`, without the agent's code.

Reads {"prompt": …, "tokens": …} per line and answers with the figures of one greedy generation through its own
/completion.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("server")
        self._path = path

    def connect(self) -> None:
        """Overrides http.client's."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def main() -> None:
    """Answers until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(generate(sys.argv[1], request["prompt"], request["tokens"])), flush=True)


def generate(path: str, prompt: str, tokens: int) -> dict[str, Any]:
    """Times the events of one stream."""
    connection = UnixConnection(path)
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    begin = time.perf_counter()
    connection.request("POST", "/completion", json.dumps(body), {"content-type": "application/json"})
    times: list[float] = []
    prompt_tokens = 0
    for line in connection.getresponse():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        prompt_tokens = event["tokens_evaluated"]
        if not event["stop"]:
            times.append(time.perf_counter())
    connection.close()
    return {
        "prompt_tokens": prompt_tokens, "tokens": tokens, "first_seconds": times[0] - begin,
        "decode_seconds": times[-1] - times[0],
    }  # fmt: skip


if __name__ == "__main__":
    main()
