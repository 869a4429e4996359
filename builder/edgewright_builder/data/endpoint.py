"""T1 behind any OpenAI-compatible endpoint: a vLLM server, a hosted model.

Every request is bounded in time and every answer in size. What the server refuses is learned once (`dialect.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import httpx

from edgewright.errors import InputError, OutsideError
from edgewright.sizes import format_bytes
from edgewright_builder.data.answers import Answer, read_answer
from edgewright_builder.data.client import Chat, Completion, Rating, TeacherSampling
from edgewright_builder.data.dialect import THOUGHT_TOKENS, Dialect
from edgewright_builder.data.parsing import parse_score

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
REFUSED_FIELDS = frozenset({400, 422})  # what servers say to a field they do not take
LONGEST_WAIT_SECONDS = 60.0
RATING_TOKENS = 16
ANSWER_BYTES_MAX = 8 * 1024 * 1024  # some thousand times what the longest answer needs
AGAIN = "Run the same command again with --resume to go on."
HINTS = {
    401: " Name the variable that holds the key in `teachers.data.api_key_env`.",
    403: " Name the variable that holds the key in `teachers.data.api_key_env`.",
    404: " `teachers.data.endpoint` is the part before /chat/completions, such as http://HOST:8000/v1.",
}

T = TypeVar("T")


@dataclass(frozen=True)
class EndpointClient:
    """T1 as `model` at `base_url` (the part before `/chat/completions`); the key is read from `api_key_variable`.

    `generate` and `rate` raise OutsideError when the endpoint gives no answer after `attempts` tries and InputError
    when it says that the request is wrong. `say` is told what changes when the server does not take a field.
    """

    base_url: str
    model: str
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    attempts: int = 6
    timeout_seconds: float = 120.0  # of one answer, from the request to its last byte
    first_wait_seconds: float = 0.5
    say: Callable[[str], None] = lambda _: None
    dialect: Dialect = field(default_factory=Dialect)

    @property
    def identity(self) -> str:
        """The endpoint and the model's name: what is behind the name cannot be seen from here."""
        return f"{self.base_url.rstrip('/')}#{self.model}"

    @property
    def url(self) -> str:
        """Where completions are asked for."""
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_tokens: int,
        sampling: TeacherSampling,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[Completion]:
        """Generates as `Client.generate` says, repeatable as far as the server honours `seed`."""
        common: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if stop:
            common["stop"] = list(stop)
        requests = [{**common, "messages": chat, "seed": (seed + i) % 2**31} for i, chat in enumerate(chats)]
        answers = run_to_the_end(self._ask_all(requests, stop))
        if not self.dialect.thinks and any(answer.only_thoughts for answer in answers):
            answers = self._ask_with_room(requests, answers, stop)
        return [answer.completion for answer in answers]

    def rate(self, chats: Sequence[Chat], *, seed: int) -> list[Rating]:
        """Returns the score each greedy answer names."""
        greedy = TeacherSampling(temperature=0.0, top_p=1.0)
        completions = self.generate(chats, max_tokens=RATING_TOKENS, sampling=greedy, seed=seed)
        return [Rating(parse_score(c.text), c.text or c.remark) for c in completions]

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Raises InputError: chat completions do not give the log-likelihood of a given text."""
        raise InputError(
            f"`data.critic: relevance` needs a local T1, and {self.model!r} is an endpoint: use critic 'rubric'."
        )

    def _ask_with_room(
        self, requests: list[dict[str, Any]], answers: list[Answer], stop: Sequence[str]
    ) -> list[Answer]:
        """Repeats the requests to which the model only thought, with room for thoughts."""
        self.dialect.thinks = True
        self.say(f"T1 thinks before it answers: it gets {THOUGHT_TOKENS} more tokens for each answer")
        repeated = [i for i, answer in enumerate(answers) if answer.only_thoughts]
        again = run_to_the_end(self._ask_all([requests[i] for i in repeated], stop))
        return [dict(zip(repeated, again, strict=True)).get(i, answer) for i, answer in enumerate(answers)]

    async def _ask_all(self, requests: list[dict[str, Any]], stop: Sequence[str]) -> list[Answer]:
        gate = asyncio.Semaphore(self.concurrency)
        timeout = httpx.Timeout(None, connect=self.timeout_seconds)
        async with httpx.AsyncClient(headers=self._headers(), timeout=timeout) as http:
            tasks = [asyncio.ensure_future(self._ask(http, gate, request, stop)) for request in requests]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.api_key_variable, "").strip()
        if not key.isascii() or not key.isprintable():
            raise InputError(
                f"The environment variable {self.api_key_variable} holds no key: it must be one line of ASCII."
            )
        return {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})

    async def _ask(
        self, http: httpx.AsyncClient, gate: asyncio.Semaphore, request: dict[str, Any], stop: Sequence[str]
    ) -> Answer:
        """Sends one request, tried again with growing, jittered waits while the fault may pass."""
        fault, attempt = "", 0
        while attempt < self.attempts:
            if attempt:
                await asyncio.sleep(self._wait_seconds(attempt))
            body = self.dialect.body(request)
            try:
                async with gate, asyncio.timeout(self.timeout_seconds):
                    status, headers, data = await self._exchange(http, body)
                if status == HTTPStatus.OK:
                    return read_answer(_json_object(data), stop)
                fault = _fault(status, headers, data)
                if status in REFUSED_FIELDS and self._learned(body, data):
                    continue
                if status not in RETRIED:
                    raise InputError(
                        f"T1 at {self.url} refused model {self.model!r}: {fault}{HINTS.get(status, '')}"
                    )
            except (TimeoutError, httpx.TimeoutException):
                fault = f"no whole answer within {self.timeout_seconds:g} s"
            except (httpx.TransportError, ValueError) as error:
                fault = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            attempt += 1
        times = "once" if self.attempts == 1 else f"{self.attempts} times, the last time"
        raise OutsideError(f"T1 at {self.url} failed {times} with {fault}. {AGAIN}")

    async def _exchange(
        self, http: httpx.AsyncClient, body: dict[str, Any]
    ) -> tuple[int, httpx.Headers, bytes]:
        """Returns status, headers and body. Raises OutsideError for a body beyond what an answer can need."""
        async with http.stream("POST", self.url, json=body) as response:
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > ANSWER_BYTES_MAX:
                    raise OutsideError(
                        f"T1 at {self.url} sent more than {format_bytes(ANSWER_BYTES_MAX)} for one answer; check what "
                        f"serves there. {AGAIN}"
                    )
            return response.status_code, response.headers, bytes(data)

    def _learned(self, body: dict[str, Any], data: bytes) -> bool:
        """Whether the refusal names a field that can be done without."""
        change = self.dialect.learn(body, data.decode(errors="replace"))
        if change:
            self.say(change)
        return change is not None

    def _wait_seconds(self, attempt: int) -> float:
        """Returns an exponential backoff with jitter, so that refused requests do not come back together."""
        ceiling = min(LONGEST_WAIT_SECONDS, self.first_wait_seconds * 2**attempt)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - not for secrets


def run_to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine from plain code, also where the thread has a running loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def _json_object(data: bytes) -> dict[str, Any]:
    """Returns the body as an object. Raises ValueError if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"an answer that is no JSON: {_excerpt(data)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"an answer that is no JSON object: {_excerpt(data)}")
    return value


def _fault(status: int, headers: httpx.Headers, data: bytes) -> str:
    place = headers.get("location")
    where = "" if place is None else f" to {place}; write that place's address into `teachers.data.endpoint`"
    return f"HTTP {status}{where}: {_excerpt(data)}"


def _excerpt(data: bytes) -> str:
    return " ".join(data[:1000].decode(errors="replace").split())[:200] or "nothing"
