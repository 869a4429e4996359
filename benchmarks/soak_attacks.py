"""What a hostile client does to a board's OpenAI API, in a process of its own: `python soak_attacks.py URL SEED KIND…`.

It obeys lines on its standard input: `attack` (one attack after the other), `compute SHARE` (nothing but computing, for
that share of a core), `rest`. It prints that it is ready, and each attack with its answer. `ATTACKS` has the kinds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from soak_load import SENTENCE

ADDRESS = "127.0.0.66"  # all of 127.0.0.0/8 is this machine, and a board knows clients by their addresses
ANSWER_SECONDS = 60.0  # in which whatever is sent has to be answered
FLOOD = 60  # silent connections at once
CROWD = 16  # long requests at once
SLICE_SECONDS = 0.05  # of computing and resting

Attack = Callable[[str, httpx.AsyncClient], Awaitable[str]]  # base URL, and a client of it


def main() -> None:
    """Obeys until its input ends."""
    url, seed, *kinds = sys.argv[1:]
    asyncio.run(obey(url, random.Random(int(seed)), kinds))


async def obey(url: str, rng: random.Random, kinds: Sequence[str]) -> None:
    """Does what the last line says, and changes with the next one."""
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    work = asyncio.ensure_future(asyncio.sleep(0))
    async with hostile_client(url) as http:
        print("ready", flush=True)
        while line := (await orders.readline()).decode().split():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if line[0] == "attack":
                work = asyncio.ensure_future(attack(url, http, rng, kinds))
            elif line[0] == "compute":
                work = asyncio.ensure_future(compute(float(line[1])))
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def hostile_client(url: str) -> httpx.AsyncClient:
    """An HTTP client of the board, at an address of its own."""
    limits = httpx.Limits(max_connections=None)
    transport = httpx.AsyncHTTPTransport(local_address=ADDRESS, limits=limits)
    return httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, transport=transport)


async def attack(url: str, http: httpx.AsyncClient, rng: random.Random, kinds: Sequence[str]) -> None:
    """Makes one attack after the other."""
    while True:
        kind = rng.choice(kinds)
        try:
            answer = await ATTACKS[kind](url, http)
        except (httpx.HTTPError, OSError, asyncio.TimeoutError) as error:
            answer = type(error).__name__
        print(f"{kind}: {answer}", flush=True)


async def compute(share: float) -> None:
    """Keeps one core busy for that share of the time."""
    while True:
        end = time.thread_time() + share * SLICE_SECONDS
        while time.thread_time() < end:
            pass
        await asyncio.sleep((1 - share) * SLICE_SECONDS)


def _post(route: str, make_body: Callable[[], bytes]) -> Attack:
    """Posts a body that is made once: what it costs to write is the attacker's, not the board's."""
    body = functools.cache(make_body)
    headers = {"content-type": "application/json"}

    async def post(_: str, http: httpx.AsyncClient) -> str:
        return str((await http.post(route, content=body(), headers=headers)).status_code)

    return post


def _prompt(text: str, times: int) -> Attack:
    return _post("/v1/completions", lambda: json.dumps({"prompt": text * times}).encode())


def _schema(schema: dict[str, Any]) -> Attack:
    form = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 16, "response_format": form}
    return _post("/v1/chat/completions", lambda: json.dumps(body).encode())


async def slow_reader(url: str, http: httpx.AsyncClient) -> str:
    """Asks for a long stream, reads nothing for a while, and leaves."""
    body = json.dumps({"prompt": "x", "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
    reader, writer = await _connect(url)
    writer.write(_head(url, len(body)) + body)
    await asyncio.sleep(3)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return "left" if not reader.at_eof() else "closed"


async def flood(url: str, http: httpx.AsyncClient) -> str:
    """Opens connections and says nothing."""
    connections = await asyncio.gather(*(_connect(url) for _ in range(FLOOD)), return_exceptions=True)
    await asyncio.sleep(2)
    opened = [connection for connection in connections if not isinstance(connection, BaseException)]
    for _, writer in opened:
        writer.close()
    return "opened"


async def crowd(url: str, http: httpx.AsyncClient) -> str:
    """Asks for many long texts at once, and reads them."""
    body = {"prompt": SENTENCE, "max_tokens": 200, "ignore_eos": True, "stream": True}
    answers = await asyncio.gather(*(http.post("/v1/completions", json=body) for _ in range(CROWD)))
    return ", ".join(sorted({str(answer.status_code) for answer in answers}))


async def upgrade_offer(url: str, http: httpx.AsyncClient) -> str:
    """Offers HTTP/2, as `curl --http2` does, with a body."""
    headers = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAMAAABkAAQAAP__",
    }
    body = {"prompt": "x", "max_tokens": 1}
    return str((await http.post("/v1/completions", json=body, headers=headers)).status_code)


GREEDY = "long requests at once"  # no attack: whoever asks for much gets its share, and costs others that
MESSAGE = {"role": "user", "content": "hi"}
ATTACKS: dict[str, Attack] = {
    "overlong prompt": _prompt("x ", 750_000),
    "overlong chat": _post(
        "/v1/chat/completions", lambda: json.dumps({"messages": [MESSAGE] * 100_000}).encode()
    ),
    "prompt over the context": _prompt(SENTENCE, 2000),  # which only tokenizing shows
    "nonsense": _post("/v1/completions", lambda: b'{"prompt":' + b"[]," * 1_300_000),
    "schema of 100,000 values": _schema({"enum": [f"value {n}" for n in range(100_000)]}),
    "schema of itself": _schema({"$ref": "#"}),
    "schema that explodes": _schema({"type": "string", "pattern": "^(.*a.{30}|.*b.{40}|.*c.{50})$"}),
    "slow reader": slow_reader,
    GREEDY: crowd,
    "connection flood": flood,
    "upgrade offer": upgrade_offer,
}


HOSTILE = tuple(kind for kind in ATTACKS if kind != GREEDY)


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, local_addr=(ADDRESS, 0))


def _head(url: str, length: int) -> bytes:
    host = urlsplit(url).netloc
    return (
        f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


if __name__ == "__main__":
    main()
