"""OpenAI's fields that llama-server would obey wrongly or not at all, and its answers put into OpenAI's shape.

It takes any model's name and any top_p, leaves `echo` out in silence, and gives completions the log-probabilities of
chats. Everything else is its own business.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from edgewright.errors import InputError
from edgewright_agent.engines.http.events import content, events
from edgewright_agent.engines.http.request_checks import STOPS_MAX
from edgewright_agent.engines.llama_cpp.completion import folded
from edgewright_agent.engines.protocol.requests import Reply

COMPLETIONS = "/v1/completions"
ROUTES = (COMPLETIONS, "/v1/chat/completions")
MAX_TOKENS = 16  # of OpenAI's completions that don't say
LOGPROBS_MAX = {"logprobs": 5, "top_logprobs": 20}  # OpenAI's limits


class WrongFieldError(Exception):
    """A request that is answered with an error in OpenAI's shape."""

    def __init__(
        self, message: str, code: str = "invalid_value", status: int = HTTPStatus.BAD_REQUEST
    ) -> None:
        super().__init__(message)
        self._code, self._status = code, status

    @classmethod
    def of_server(cls, status: int, body: bytes) -> WrongFieldError:
        """Returns the error with which the server answered."""
        try:
            message = str(json.loads(body)["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = body.decode(errors="replace")[:200]
        return cls(
            message,
            "engine_failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_value",
            status,
        )

    @property
    def reply(self) -> Reply:
        """The answer."""
        kind = "server_error" if self._status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self._code}
        return json_reply(self._status, json.dumps({"error": error}).encode())


def parse(route: str, body: bytes, model: str) -> dict[str, Any]:
    """Returns the fields as the server gets them. Raises WrongFieldError."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WrongFieldError(f"The body is no JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise WrongFieldError(f"The body is {type(fields).__name__}; it must be an object.")
    fields = {name: value for name, value in fields.items() if value is not None}
    if fields.get("model", model) != model:
        message = f"There is no model {str(fields['model'])[:100]!r} here; {model} is served."
        raise WrongFieldError(message, "model_not_found", HTTPStatus.NOT_FOUND)
    _check(fields)
    if route == COMPLETIONS:
        _check_prompt(fields.get("prompt"))
    if isinstance(fields.get("seed"), int):
        fields["seed"] = folded(fields["seed"] % 2**64)
    return fields


def check_sampling(temperature: float, top_p: float) -> None:
    """Raises InputError for values that mean nothing."""
    if not temperature >= 0 or temperature == float("inf"):
        raise InputError(f"temperature is {temperature:g}; it must be 0 or more.")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p:g}; it must be above 0 and at most 1.")


def put_right(reply: Reply, route: str, fields: dict[str, Any]) -> Reply:
    """Returns the reply with the log-probabilities of completions as OpenAI has them."""
    if route != COMPLETIONS or "logprobs" not in fields or reply.status != HTTPStatus.OK:
        return reply
    headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
    streams = headers.get("content-type", "").startswith("text/event-stream")
    return Reply(reply.status, headers, _put_right_stream(reply) if streams else _put_right_whole(reply))


async def _put_right_whole(reply: Reply) -> AsyncGenerator[bytes, None]:
    yield json.dumps(_with_logprobs(json.loads(await reply.read()), 0)[0]).encode()


async def _put_right_stream(reply: Reply) -> AsyncGenerator[bytes, None]:
    offset = 0
    async with aclosing(events(reply.pieces)) as arrivals:
        async for together in arrivals:
            for event in together:
                chunk = content(event)
                raw = event.raw
                if chunk is not None:
                    chunk, offset = _with_logprobs(chunk, offset)
                    raw = b"data: " + json.dumps(chunk).encode()
                yield raw + b"\n\n"


def _with_logprobs(answer: dict[str, Any], offset: int) -> tuple[dict[str, Any], int]:
    """Returns an answer with OpenAI's four lists per choice, and where in the text the next one begins."""
    for choice in answer.get("choices", ()):
        steps = (choice.get("logprobs") or {}).get("content")
        if steps is not None:
            choice["logprobs"], offset = openai_logprobs(steps, offset)
    return answer, offset


def openai_logprobs(steps: Sequence[dict[str, Any]], offset: int) -> tuple[dict[str, Any], int]:
    """Returns the lists of a completion for the server's entry of each token, and where its text ends."""
    texts = [str(step["token"]) for step in steps]
    starts = [offset + sum(map(len, texts[:index])) for index in range(len(texts) + 1)]
    lists = {
        "tokens": texts,
        "token_logprobs": [step["logprob"] for step in steps],
        "top_logprobs": [{top["token"]: top["logprob"] for top in step["top_logprobs"]} for step in steps],
        "text_offset": starts[:-1],
    }
    return lists, starts[-1]


def _check(fields: dict[str, Any]) -> None:
    for name in ("temperature", "top_p"):
        if name in fields and not isinstance(fields[name], (int, float)):
            raise WrongFieldError(f"{name} is {fields[name]!r}; it must be a number.")
    try:
        check_sampling(float(fields.get("temperature", 1)), float(fields.get("top_p", 1)))
    except InputError as error:
        raise WrongFieldError(str(error)) from error
    stops = fields.get("stop", [])
    stops = [stops] if isinstance(stops, str) else stops
    if (
        not isinstance(stops, list)
        or len(stops) > STOPS_MAX
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise WrongFieldError(f"stop takes one to {STOPS_MAX} strings, none of them empty.")
    if fields.get("echo"):
        raise WrongFieldError("llama.cpp does not repeat the prompt; leave echo out.")
    for name in ("max_tokens", "max_completion_tokens"):
        value = fields.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WrongFieldError(f"{name} is {value!r}; it must be a whole number from 1 on.")
    for name, most in LOGPROBS_MAX.items():
        value = fields.get(name, 0)
        if isinstance(value, int) and not isinstance(value, bool) and not 0 <= value <= most:
            raise WrongFieldError(f"{name} is {value}; it must be 0 to {most}.")


def _check_prompt(prompt: Any) -> None:
    prompts = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    for each in prompts:
        if not each or not (
            isinstance(each, str) or (isinstance(each, list) and all(type(t) is int for t in each))
        ):
            raise WrongFieldError("prompt must be a text, tokens, or a list of those, none of them empty.")


def json_reply(status: int, body: bytes) -> Reply:
    """Returns a whole answer."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield body

    return Reply(status, {"content-type": "application/json"}, pieces())
