"""T2 behind an OpenAI-compatible server: the log-probabilities of the tokens of a prompt, by POST /completions.

Two forms of the answer are known: vLLM's `prompt_logprobs`, and OpenAI's first one, `echo` with `logprobs`, which
SGLang and vLLM give. A server with neither, such as llama-server, can't be a knowledge teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from edgewright.errors import InputError
from edgewright_builder.alignment.vocabulary import Vocabulary
from edgewright_builder.model_server.exchange import AnswerBounds, get, post
from edgewright_builder.model_server.proxies import usable_proxies
from edgewright_builder.model_server.requests import authorization, excerpt, json_object, run_to_the_end
from edgewright_builder.model_server.retries import (
    RETRIED,
    USUAL_POLICY,
    PassingFaultError,
    RetryPolicy,
    asked_seconds,
)
from edgewright_builder.teacher_cache.prompt_answers import Row, WrongAnswerError, rows_of

ANSWER_BYTES_MIN = 2**20
ENTRY_BYTES = 400  # of a token with its log-probability, rank and text: some five times what they take
MODELS_SECONDS = 30.0
MODELS_BYTES_MAX = 2**20
FORMS: tuple[dict[str, Any], ...] = ({"prompt_logprobs": True}, {"echo": True})


@dataclass
class PromptScores:
    """The model `model` at `base_url`, asked for the `top_k` most likely tokens at each place of a prompt."""

    base_url: str
    model: str
    top_k: int
    vocabulary: Vocabulary  # of the tokenizer as it was published
    api_key_variable: str | None = None
    timeout_seconds: float = 600.0  # of one answer, to its last byte: a large model may queue
    retries: RetryPolicy = USUAL_POLICY
    _form: int | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Where completions are asked for."""
        return f"{self.base_url.rstrip('/')}/completions"

    def check(self) -> None:
        """Asks about a short text. Raises InputError or OutsideError where a longer one would fail too."""
        tokens = self.vocabulary.encode("The capital of France is Paris.").ids

        async def ask() -> None:
            async with self.open() as http:
                await self._require_model(http)
                await self.score(http, tokens)

        run_to_the_end(ask())

    def open(self) -> httpx.AsyncClient:
        """Returns a client for `score`. Raises InputError where the key can't be sent, or no proxy be used."""
        headers = {"Accept-Encoding": "identity"} | authorization(self.api_key_variable)
        with usable_proxies():
            return httpx.AsyncClient(
                headers=headers, timeout=httpx.Timeout(None, connect=self.timeout_seconds)
            )

    async def score(self, http: httpx.AsyncClient, tokens: Sequence[int]) -> list[Row]:
        """Returns the `top_k` tokens and log-probabilities for each of `tokens` but the first.

        Raises InputError for a server whose answers can't be used, OutsideError for one that does not answer.
        """
        forms = range(len(FORMS)) if self._form is None else [self._form]
        refusals = []
        for form in forms:
            try:
                answer = await self._post(http, self._body(tokens, form), len(tokens))
                rows = rows_of(answer, tokens, self.top_k, self.vocabulary)
            except WrongAnswerError as error:
                refusals.append(str(error))
                continue
            self._require_name(answer)
            self._form = form
            return rows
        raise InputError(
            f"T2 at {self.url} gives no log-probabilities of prompt tokens that can be used: {'; '.join(refusals)}. "
            f"Serve it with `vllm serve MODEL --max-logprobs {self.top_k}`, or lower `teachers.knowledge.top_k`."
        )

    def _body(self, tokens: Sequence[int], form: int) -> dict[str, Any]:
        common = {"model": self.model, "prompt": list(tokens), "max_tokens": 1, "temperature": 0}
        if "echo" in FORMS[form]:
            return common | {"echo": True, "logprobs": self.top_k, "return_tokens_as_token_ids": True}
        return common | {"prompt_logprobs": self.top_k}

    async def _require_model(self, http: httpx.AsyncClient) -> None:
        """Raises InputError where the server lists models and not this one."""
        bounds = AnswerBounds(f"T2 at {self.base_url}", MODELS_SECONDS, MODELS_BYTES_MAX)
        try:
            answer = await get(http, f"{self.base_url.rstrip('/')}/models", bounds)
            names = [str(entry["id"]) for entry in json_object(answer.data)["data"]]
        except (httpx.HTTPError, PassingFaultError, ValueError, KeyError, TypeError):
            return  # the list is optional; what matters is asked for next
        if names and self.model not in names:
            raise InputError(
                f"T2 at {self.base_url} serves {', '.join(names[:5])}, not {self.model!r}; correct "
                "`teachers.knowledge.model`."
            )

    def _require_name(self, answer: Mapping[str, Any]) -> None:
        name = answer.get("model")
        if isinstance(name, str) and name != self.model:
            raise InputError(
                f"T2 at {self.url} answered as {name!r} and was asked as {self.model!r}; correct "
                "`teachers.knowledge.model`."
            )

    async def _post(self, http: httpx.AsyncClient, body: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """Returns the answer's object, asked again while the fault may pass."""
        size_bytes = ANSWER_BYTES_MIN + tokens * (self.top_k + 1) * ENTRY_BYTES
        bounds = AnswerBounds(f"T2 at {self.url}", self.timeout_seconds, size_bytes)

        async def attempt() -> dict[str, Any]:
            reply = await post(http, self.url, body, bounds)
            if reply.status == HTTPStatus.OK:
                return _object(reply.data)
            fault = reply.fault("teachers.knowledge.endpoint")
            if reply.status in RETRIED:
                raise PassingFaultError(fault, asked_seconds(reply.headers))
            raise self._refusal(reply.status, fault)

        return await self.retries.run(attempt, bounds.server)

    def _refusal(self, status: int, fault: str) -> Exception:
        """Returns the error of a status that stays: a form may be refused, a key or an address is wrong."""
        if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            return WrongAnswerError(fault)
        hints = {
            401: " Name the variable that holds the key in `teachers.knowledge.api_key_env`.",
            403: " Name the variable that holds the key in `teachers.knowledge.api_key_env`.",
            404: " `teachers.knowledge.endpoint` is the part before /completions, such as http://HOST:8000/v1.",
        }
        return InputError(f"T2 at {self.url} refused model {self.model!r}: {fault}.{hints.get(status, '')}")


def _object(data: bytes) -> dict[str, Any]:
    try:
        return json_object(data)
    except ValueError:
        raise WrongAnswerError(f"an answer that is no JSON object: {excerpt(data)}") from None
