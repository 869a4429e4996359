"""T1 behind any OpenAI-compatible endpoint: a vLLM server, a hosted model.

Every request is bounded in time and every answer in size. What the server refuses is learned once (`server_quirks.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from edgewright.errors import InputError
from edgewright_builder.data.chat_completion import Answer, read_answer
from edgewright_builder.data.data_teacher import Chat, Completion, Rating, TeacherSampling
from edgewright_builder.data.parsing import parse_score
from edgewright_builder.data.server_quirks import THOUGHT_TOKENS, Dialect
from edgewright_builder.model_server.exchange import AnswerBounds, HttpAnswer, post
from edgewright_builder.model_server.proxies import usable_proxies
from edgewright_builder.model_server.requests import authorization, json_object, run_to_the_end
from edgewright_builder.model_server.retries import (
    RETRIED,
    USUAL_POLICY,
    PassingFaultError,
    RetryPolicy,
    asked_seconds,
)

REFUSED_FIELDS = frozenset({400, 422})  # what servers say to a field they do not take
RATING_TOKENS = 16
ANSWER_BYTES_MAX = 8 * 1024 * 1024  # some thousand times what the longest answer needs
HINTS = {
    401: " Name the variable that holds the key in `teachers.data.api_key_env`.",
    403: " Name the variable that holds the key in `teachers.data.api_key_env`.",
    404: " `teachers.data.endpoint` is the part before /chat/completions, such as http://HOST:8000/v1.",
}


@dataclass(frozen=True)
class EndpointClient:
    """T1 as `model` at `base_url` (the part before `/chat/completions`); the key is read from `api_key_variable`.

    `generate` and `rate` raise OutsideError when the endpoint gives no answer however often it is asked, and InputError
    when it says that the request is wrong. `say` is told what changes when the server does not take a field.
    """

    base_url: str
    model: str
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout_seconds: float = 120.0  # of one answer, from the request to its last byte
    retries: RetryPolicy = USUAL_POLICY
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
        headers = {"Accept-Encoding": "identity"} | authorization(self.api_key_variable)
        timeout = httpx.Timeout(None, connect=self.timeout_seconds)
        with usable_proxies():
            client = httpx.AsyncClient(headers=headers, timeout=timeout)
        async with client as http:
            tasks = [asyncio.ensure_future(self._ask(http, gate, request, stop)) for request in requests]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _ask(
        self, http: httpx.AsyncClient, gate: asyncio.Semaphore, request: dict[str, Any], stop: Sequence[str]
    ) -> Answer:
        """Sends one request, again while the fault may pass, and at once without a field that the server refuses."""

        async def attempt() -> Answer:
            while True:
                body = self.dialect.body(request)
                async with gate:
                    answer = await post(http, self.url, body, bounds)
                if answer.status == HTTPStatus.OK:
                    return _read(answer.data, stop)
                if answer.status not in REFUSED_FIELDS or not self._learned(body, answer.data):
                    raise self._refusal(answer)

        bounds = AnswerBounds(f"T1 at {self.url}", self.timeout_seconds, ANSWER_BYTES_MAX)
        return await self.retries.run(attempt, bounds.server)

    def _refusal(self, answer: HttpAnswer) -> Exception:
        fault = answer.fault("teachers.data.endpoint")
        if answer.status in RETRIED:
            return PassingFaultError(fault, asked_seconds(answer.headers))
        hint = HINTS.get(answer.status, "")
        return InputError(f"T1 at {self.url} refused model {self.model!r}: {fault}{hint}")

    def _learned(self, body: dict[str, Any], data: bytes) -> bool:
        """Whether the refusal names a field that can be done without."""
        change = self.dialect.learn(body, data.decode(errors="replace"))
        if change:
            self.say(change)
        return change is not None


def _read(data: bytes, stop: Sequence[str]) -> Answer:
    try:
        return read_answer(json_object(data), stop)
    except ValueError as error:
        raise PassingFaultError(f"ValueError: {error}"[:300]) from None
