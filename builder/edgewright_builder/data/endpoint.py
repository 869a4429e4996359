"""T1 behind any OpenAI-compatible endpoint: a vLLM server, a hosted model."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from edgewright.errors import InputError, OutsideError
from edgewright_builder.data.client import Chat, Completion, TeacherSampling, cut_at_stop
from edgewright_builder.data.parsing import parse_score

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT_SECONDS = 60.0
RATING_TOKENS = 16


@dataclass(frozen=True)
class EndpointClient:
    """T1 as `model` at `base_url` (the part before `/chat/completions`); the key is read from `api_key_variable`.

    `generate` and `rate` raise OutsideError when the endpoint does not answer after `attempts` tries and InputError
    when it says that the request is wrong.
    """

    base_url: str
    model: str
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    attempts: int = 6
    timeout_seconds: float = 120.0
    first_wait_seconds: float = 0.5

    @property
    def identity(self) -> str:
        """The endpoint and the model's name: what is behind the name cannot be seen from here."""
        return f"{self.base_url.rstrip('/')}#{self.model}"

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_tokens: int,
        sampling: TeacherSampling,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[Completion]:
        """See `Client.generate`. Repeatable as far as the server honours `seed`."""
        common = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if stop:
            common["stop"] = list(stop)
        bodies = [{**common, "messages": chat, "seed": (seed + i) % 2**31} for i, chat in enumerate(chats)]
        return [_completion(answer, stop) for answer in asyncio.run(self._ask_all(bodies))]

    def rate(self, chats: Sequence[Chat], *, seed: int) -> list[float | None]:
        """The score each greedy answer names; None where it names none."""
        greedy = TeacherSampling(temperature=0.0, top_p=1.0)
        completions = self.generate(chats, max_tokens=RATING_TOKENS, sampling=greedy, seed=seed)
        return [parse_score(completion.text) for completion in completions]

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Raises InputError: chat completions do not give the log-likelihood of a given text."""
        raise InputError(
            f"critic 'relevance' needs a local T1, and {self.model!r} is an endpoint: use critic 'rubric'"
        )

    async def _ask_all(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        key = os.environ.get(self.api_key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        gate = asyncio.Semaphore(self.concurrency)
        async with httpx.AsyncClient(headers=headers, timeout=self.timeout_seconds) as http:
            tasks = [asyncio.ensure_future(self._ask(http, gate, body)) for body in bodies]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _ask(
        self, http: httpx.AsyncClient, gate: asyncio.Semaphore, body: dict[str, Any]
    ) -> dict[str, Any]:
        """One request, tried again with growing, jittered waits while the fault may pass."""
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        fault = ""
        for attempt in range(self.attempts):
            if attempt:
                await asyncio.sleep(self._wait_seconds(attempt))
            try:
                async with gate:
                    response = await http.post(url, json=body)
                if response.status_code == httpx.codes.OK:
                    return _json_object(response)
                fault = f"HTTP {response.status_code}: {response.text[:200].strip()}"
                if response.status_code not in RETRIED:
                    raise InputError(f"T1 at {url} refused model {self.model!r}: {fault}")
            except (httpx.TransportError, ValueError) as error:
                fault = f"{type(error).__name__}: {error}"
        raise OutsideError(
            f"T1 at {url} failed {self.attempts} times, the last time with {fault}; run again to resume"
        )

    def _wait_seconds(self, attempt: int) -> float:
        """Exponential backoff with full jitter, so that refused requests do not come back together; no secret."""
        ceiling = min(LONGEST_WAIT_SECONDS, self.first_wait_seconds * 2**attempt)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311


def _json_object(response: httpx.Response) -> dict[str, Any]:
    value = response.json()
    if not isinstance(value, dict) or not value.get("choices"):
        raise ValueError(f"an answer without choices: {response.text[:200]}")
    return value


def _completion(answer: dict[str, Any], stop: Sequence[str]) -> Completion:
    choice = answer["choices"][0]
    text = choice["message"].get("content") or ""
    cut = cut_at_stop(text, stop)  # not every server knows `stop`
    tokens = (answer.get("usage") or {}).get("completion_tokens", 0)
    complete = cut is not None or choice.get("finish_reason") != "length"
    return Completion((text if cut is None else cut).strip(), int(tokens), complete)
