"""One client of the soak: asks a board for something sensible or senseless, and says how it was answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import httpx

from edgewright.errors import BusyError, EdgewrightError, InputError
from edgewright.v1.inference_pb2 import Chat, ChatMessage, GenerateRequest, ScoreItem
from edgewright_builder.device_client.client import DeviceClient

STUCK_SECONDS = 60.0
SENTENCE = "The board reads its sensors once a second. "


class Outcome(Enum):
    """How a request ended."""

    ANSWERED = "answered"
    CANCELLED = "cancelled by the client"
    REFUSED = "refused as it should be"  # malformed, and said so
    BUSY = "over capacity, and said so"
    FAILED = "failed clearly"  # the engine was killed or restarts, and the error says so
    STUCK = "stuck"
    WRONG = "wrong"


@dataclass(frozen=True)
class Clients:
    """Both ways in."""

    client: DeviceClient
    http: httpx.AsyncClient


async def ask(clients: Clients, rng: random.Random) -> tuple[str, Outcome, str]:
    """One request of a random kind: its kind, how it ended, and what was said where that was wrong."""
    kind = rng.choice(list(KINDS))
    try:
        return kind, await asyncio.wait_for(KINDS[kind](clients, rng), STUCK_SECONDS), ""
    except asyncio.TimeoutError:
        return kind, Outcome.STUCK, f"no end within {STUCK_SECONDS:g} s"
    except BusyError:
        return kind, Outcome.BUSY, ""
    except InputError as error:
        return kind, Outcome.WRONG, str(error)
    except EdgewrightError as error:
        return kind, Outcome.FAILED, str(error)
    except (httpx.HTTPError, ValueError, AssertionError) as error:
        return kind, Outcome.WRONG, f"{type(error).__name__}: {error}"


async def generate(clients: Clients, rng: random.Random) -> Outcome:
    """gRPC, to the end."""
    request = GenerateRequest(
        prompt=SENTENCE * rng.randint(1, 20), max_tokens=rng.randint(1, 48), ignore_eos=True
    )
    tokens, completions = 0, 0
    async for event in clients.client.generate(request):
        tokens += len(event.deltas)
        completions += event.HasField("completion")
    assert (tokens, completions) == (request.max_tokens, 1), f"{tokens} tokens, {completions} completions"
    return Outcome.ANSWERED


async def generate_and_leave(clients: Clients, rng: random.Random) -> Outcome:
    """gRPC, cancelled after a few tokens."""
    request = GenerateRequest(
        chat=Chat(messages=[ChatMessage(role="user", content=SENTENCE)]), max_tokens=200, ignore_eos=True
    )
    leave_after = rng.randint(0, 10)
    events = clients.client.generate(request)
    async with contextlib.aclosing(events):
        async for event in events:
            leave_after -= len(event.deltas)
            if leave_after < 0:
                break
    return Outcome.CANCELLED


async def score(clients: Clients, rng: random.Random) -> Outcome:
    """gRPC, log-likelihoods."""
    items = [ScoreItem(context=SENTENCE * rng.randint(1, 10), continuations=["Good.", "Bad."])] * 2
    results = await clients.client.score(items, deadline_seconds=STUCK_SECONDS)
    assert [len(result.continuations) for result in results] == [2, 2]
    return Outcome.ANSWERED


async def generate_nonsense(clients: Clients, rng: random.Random) -> Outcome:
    """gRPC, malformed."""
    wrong = [
        GenerateRequest(prompt=""),
        GenerateRequest(prompt="x", temperature=-1.0),
        GenerateRequest(prompt="x", top_p=7.0),
        GenerateRequest(prompt=SENTENCE * 5000, max_tokens=1),
    ]
    try:
        async for _ in clients.client.generate(rng.choice(wrong)):
            return Outcome.WRONG
    except InputError:
        return Outcome.REFUSED
    return Outcome.WRONG


async def chat(clients: Clients, rng: random.Random) -> Outcome:
    """HTTP, whole."""
    body = {
        "messages": [{"role": "user", "content": SENTENCE}],
        "max_tokens": rng.randint(1, 32),
        "logprobs": True,
    }
    response = await clients.http.post("/v1/chat/completions", json=body)
    if (outcome := _not_ok(response)) is not None:
        return outcome
    assert response.json()["choices"][0]["finish_reason"] in ("stop", "length")
    return Outcome.ANSWERED


async def stream(clients: Clients, rng: random.Random) -> Outcome:
    """HTTP, streamed to the end."""
    body = {"prompt": SENTENCE * rng.randint(1, 10), "max_tokens": rng.randint(1, 48), "stream": True}
    async with clients.http.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            return _not_ok(response) or Outcome.WRONG
        lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
    if "error" in json.loads(lines[-1][6:] if lines[-1] != "data: [DONE]" else "{}"):
        return Outcome.FAILED
    assert lines[-1] == "data: [DONE]", lines[-1]
    return Outcome.ANSWERED


async def stream_and_leave(clients: Clients, rng: random.Random) -> Outcome:
    """HTTP, the connection closed after a few events."""
    body = {"prompt": SENTENCE, "max_tokens": 400, "ignore_eos": True, "stream": True}
    leave_after = rng.randint(0, 10)
    async with clients.http.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            return _not_ok(response) or Outcome.WRONG
        async for _ in response.aiter_lines():
            if leave_after == 0:
                break
            leave_after -= 1
    return Outcome.CANCELLED


async def post_nonsense(clients: Clients, rng: random.Random) -> Outcome:
    """HTTP, malformed."""
    bodies = [
        b"{", b"\xff\xfe{}", b'{"prompt": 7}', b'{"prompt": "x", "model": "gpt-4"}', b'{"prompt": "x", "top_p": 9}',
        json.dumps({"prompt": SENTENCE * 5000}).encode(),
    ]  # fmt: skip
    response = await clients.http.post("/v1/completions", content=rng.choice(bodies))
    outcome = _not_ok(response)
    return (
        Outcome.REFUSED if outcome is None and 400 <= response.status_code < 500 else outcome or Outcome.WRONG
    )


def _not_ok(response: httpx.Response) -> Outcome | None:
    """What an answer other than 200 means; None where it is for the caller to judge."""
    if response.status_code == httpx.codes.OK:
        return None
    error: dict[str, Any] = response.json()["error"]
    assert error["message"]
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return Outcome.BUSY
    return Outcome.FAILED if response.status_code >= 500 else None


KINDS: dict[str, Callable[[Clients, random.Random], Awaitable[Outcome]]] = {
    "gRPC": generate,
    "gRPC, left": generate_and_leave,
    "gRPC score": score,
    "gRPC nonsense": generate_nonsense,
    "HTTP chat": chat,
    "HTTP stream": stream,
    "HTTP stream, left": stream_and_leave,
    "HTTP nonsense": post_nonsense,
}
