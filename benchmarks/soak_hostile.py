"""One hostile client beside six good ones: what it costs them, and whether a release or an engine is lost.

Quiet and hostile half-minutes alternate, so that whatever else the machine does falls on both. The good clients
generate all the time, half of them over gRPC and half over the OpenAI API. The ratio that is printed is their tokens
per second in hostile phases over those in quiet ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from serving_agent import Agent
from soak_load import SENTENCE, Clients

from edgewright.errors import EdgewrightError
from edgewright.v1.inference_pb2 import GenerateRequest

GOOD_CLIENTS = 6
PHASE_SECONDS = 30.0
ANSWER_SECONDS = 60.0  # in which a good client's request, and whatever the hostile one sends, has to end
TOKENS = 48
FLOOD = 60  # silent connections at once
GOOD_RATIO_MIN = 0.9


Attack = Callable[[Agent, httpx.AsyncClient], Awaitable[str]]


@dataclass
class Findings:
    """What was seen."""

    tokens: Counter[bool] = field(default_factory=Counter)  # in hostile phases, and not
    seconds: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    attacks: Counter[str] = field(default_factory=Counter)  # by kind and answer
    failures: Counter[str] = field(default_factory=Counter)  # of good clients
    engines: set[int] = field(default_factory=set)  # process ids
    hostile: bool = False  # the phase


async def hostile_soak(
    agent: Agent, clients: Clients, minutes: float, seed: int, kinds: Sequence[str] = ()
) -> int:
    """Runs both kinds of phases and prints what was seen; 0 if every promise was kept. `kinds`: these attacks only."""
    findings, end = Findings(), time.monotonic() + 60 * minutes
    before = (await clients.client.get_device()).active_release
    await asyncio.gather(
        *(be_good(clients, index, end, findings) for index in range(GOOD_CLIENTS)),
        attack(agent, end, random.Random(seed), kinds or tuple(ATTACKS), findings),
        watch_engines(agent, end, findings),
    )
    after = (await clients.client.get_device()).active_release
    return report(findings, kept_release=before == after)


async def be_good(clients: Clients, index: int, end: float, findings: Findings) -> None:
    """Generates one text after the other and counts its tokens for the phase they come in."""
    generate = _grpc_tokens if index % 2 else _http_tokens
    while time.monotonic() < end:
        try:
            await asyncio.wait_for(generate(clients, findings), ANSWER_SECONDS)
        except (EdgewrightError, httpx.HTTPError, ValueError, asyncio.TimeoutError) as error:
            findings.failures[f"{type(error).__name__}: {error}"[:160]] += 1
            await asyncio.sleep(0.5)


async def _grpc_tokens(clients: Clients, findings: Findings) -> None:
    request = GenerateRequest(prompt=SENTENCE, max_tokens=TOKENS, ignore_eos=True)
    async for event in clients.client.generate(request):
        findings.tokens[findings.hostile] += len(event.deltas)


async def _http_tokens(clients: Clients, findings: Findings) -> None:
    body = {"prompt": SENTENCE, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    async with clients.http.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"{response.status_code}: {(await response.aread())[:120]!r}")
        async for line in response.aiter_lines():
            findings.tokens[findings.hostile] += line.startswith("data: {")


async def attack(
    agent: Agent, end: float, rng: random.Random, kinds: Sequence[str], findings: Findings
) -> None:
    """Alternates between quiet and one attack after the other."""
    async with httpx.AsyncClient(base_url=agent.openai_url, timeout=ANSWER_SECONDS) as http:
        while time.monotonic() < end:
            began = time.monotonic()
            while time.monotonic() < min(began + PHASE_SECONDS, end):
                if findings.hostile:
                    await _one_attack(agent, http, rng.choice(kinds), findings)
                else:
                    await asyncio.sleep(0.2)
            findings.seconds[findings.hostile] += time.monotonic() - began
            findings.hostile = not findings.hostile


async def _one_attack(agent: Agent, http: httpx.AsyncClient, kind: str, findings: Findings) -> None:
    try:
        answer = await ATTACKS[kind](agent, http)
    except (httpx.HTTPError, OSError, asyncio.TimeoutError) as error:
        answer = type(error).__name__
    findings.attacks[f"{kind}: {answer}"] += 1


def _post(route: str, make_body: Callable[[], bytes]) -> Attack:
    """Posts a body that is made once: what it costs to write is the attacker's, not the board's."""
    body = functools.cache(make_body)
    headers = {"content-type": "application/json"}

    async def post(_: Agent, http: httpx.AsyncClient) -> str:
        return str((await http.post(route, content=body(), headers=headers)).status_code)

    return post


def _prompt(text: str, times: int) -> Attack:
    return _post("/v1/completions", lambda: json.dumps({"prompt": text * times}).encode())


def _schema(schema: dict[str, Any]) -> Attack:
    form = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 16, "response_format": form}
    return _post("/v1/chat/completions", lambda: json.dumps(body).encode())


async def slow_reader(agent: Agent, http: httpx.AsyncClient) -> str:
    """Asks for a long stream, reads nothing for a while, and leaves."""
    body = json.dumps({"prompt": "x", "max_tokens": 400, "ignore_eos": True, "stream": True}).encode()
    reader, writer = await _connect(agent)
    writer.write(_head(agent, len(body)) + body)
    await asyncio.sleep(3)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return "left" if not reader.at_eof() else "closed"


async def flood(agent: Agent, http: httpx.AsyncClient) -> str:
    """Opens connections and says nothing."""
    connections = await asyncio.gather(*(_connect(agent) for _ in range(FLOOD)), return_exceptions=True)
    await asyncio.sleep(2)
    opened = [connection for connection in connections if not isinstance(connection, BaseException)]
    for _, writer in opened:
        writer.close()
    return "opened"


async def upgrade_offer(agent: Agent, http: httpx.AsyncClient) -> str:
    """Offers HTTP/2, as `curl --http2` does, with a body."""
    headers = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAMAAABkAAQAAP__",
    }
    body = {"prompt": "x", "max_tokens": 1}
    return str((await http.post("/v1/completions", json=body, headers=headers)).status_code)


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
    "connection flood": flood,
    "upgrade offer": upgrade_offer,
}


async def _connect(agent: Agent) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(agent.openai_url)
    return await asyncio.open_connection(url.hostname, url.port)


def _head(agent: Agent, length: int) -> bytes:
    host = urlsplit(agent.openai_url).netloc
    return (
        f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


async def watch_engines(agent: Agent, end: float, findings: Findings) -> None:
    """Notes which engine processes there were."""
    while time.monotonic() < end:
        findings.engines |= {child.pid for child in agent.process.children()}
        await asyncio.sleep(1.0)


def report(findings: Findings, *, kept_release: bool) -> int:
    """Prints what was seen; 1 if a promise is broken."""
    rates = {phase: findings.tokens[phase] / max(1, findings.seconds[phase]) for phase in (False, True)}
    ratio = rates[True] / rates[False] if rates[False] else 0.0
    for attack_and_answer, count in sorted(findings.attacks.items()):
        print(f"  {count} × {attack_and_answer}")
    for failure, count in findings.failures.most_common(12):
        print(f"  a good client failed {count} ×: {failure}")
    print(
        f"good clients: {rates[False]:.1f} tokens/s in quiet, {rates[True]:.1f} beside a hostile client: "
        f"ratio {ratio:.3f} (at least {GOOD_RATIO_MIN}); {len(findings.engines)} engine processes; "
        f"the release is {'kept' if kept_release else 'LOST'}"
    )
    broken = ratio < GOOD_RATIO_MIN or len(findings.engines) != 1 or not kept_release or findings.failures
    return int(bool(broken))
