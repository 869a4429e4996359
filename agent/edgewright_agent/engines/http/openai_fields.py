"""OpenAI's requests where the agent looks into them: the fields' bounds, and errors in OpenAI's shape."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from http import HTTPStatus
from typing import Any

from edgewright.errors import InputError
from edgewright_agent.engines.http.request_checks import STOPS_MAX, check_sampling
from edgewright_agent.engines.protocol.requests import Reply

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ROUTES = (COMPLETIONS, CHAT)
MAX_TOKENS = 16  # of OpenAI's completions that don't say
# Other APIs' names for `max_tokens`. llama-server obeys n_predict before max_tokens and past the check of room.
# A name that a server does not know is left out in silence, or refused without being named.
OTHER_TOKEN_LIMITS = ("n_predict", "max_new_tokens", "max_output_tokens")
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
    def content(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = "server_error" if self._status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self._code}}

    @property
    def reply(self) -> Reply:
        """The answer."""
        return json_reply(self._status, json.dumps(self.content).encode())


def parse_fields(route: str, body: bytes, model: str) -> dict[str, Any]:
    """Returns the fields of a request to one of `ROUTES`, but those that are null. Raises WrongFieldError."""
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
    _check_logprobs(route, fields)
    return fields


def _check(fields: dict[str, Any]) -> None:
    temperature, top_p = (_number(name, fields.get(name, 1)) for name in ("temperature", "top_p"))
    try:
        check_sampling(temperature, top_p)
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
    _check_token_limits(fields)


def _check_logprobs(route: str, fields: dict[str, Any]) -> None:
    """Refuses what neither route means: a chat turns log-probabilities on, a completion says how many."""
    on = fields.get("logprobs", False)
    if route == CHAT and not isinstance(on, bool):
        raise WrongFieldError(f"logprobs is {on!r:.100}; of a chat it must be true or false.")
    for name in ("top_logprobs",) if route == CHAT else LOGPROBS_MAX:
        value, most = fields.get(name, 0), LOGPROBS_MAX[name]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise WrongFieldError(f"{name} is {value!r:.100}; it must be a whole number from 0 to {most}.")


def _check_token_limits(fields: dict[str, Any]) -> None:
    for name in OTHER_TOKEN_LIMITS:
        if name in fields:
            raise WrongFieldError(f"{name}: This engine does not have it; use max_tokens instead.")
    for name in ("max_tokens", "max_completion_tokens"):
        value = fields.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WrongFieldError(f"{name} is {value!r}; it must be a whole number from 1 on.")
    newer, older = fields.get("max_completion_tokens"), fields.get("max_tokens")
    if newer is not None and older is not None and newer != older:
        raise WrongFieldError(f"max_completion_tokens is {newer} and max_tokens {older}; give one of them.")


def _number(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise WrongFieldError(f"{name} is {value!r:.100}; it must be a number.")
    try:
        return float(value)
    except OverflowError:  # of an integer of hundreds of digits
        raise WrongFieldError(
            f"{name} is larger than any number that is computed with; give a smaller one."
        ) from None


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


def json_reply(status: int, body: bytes) -> Reply:
    """Returns a whole answer."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield body

    return Reply(status, {"content-type": "application/json"}, pieces())
