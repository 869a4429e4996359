"""OpenAI's fields that llama-server would obey wrongly or not at all, and its answers put into OpenAI's shape.

It takes any model's name and any top_p, leaves `echo` out in silence, and gives completions the log-probabilities of
chats. Everything else is its own business.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from edgewright_agent.engines.http.openai_fields import (
    COMPLETIONS,
    WrongFieldError,
    openai_logprobs,
    parse_fields,
)
from edgewright_agent.engines.http.reshape import reshaped
from edgewright_agent.engines.llama_cpp.completion import folded
from edgewright_agent.engines.protocol.requests import Reply


def parse(route: str, body: bytes, model: str) -> dict[str, Any]:
    """Returns the fields as the server gets them. Raises WrongFieldError."""
    fields = parse_fields(body, model)
    if fields.get("echo"):
        raise WrongFieldError("llama.cpp does not repeat the prompt; leave echo out.")
    if route == COMPLETIONS:
        _check_prompt(fields.get("prompt"))
    if isinstance(fields.get("seed"), int):
        fields["seed"] = folded(fields["seed"] % 2**64)
    return fields


def put_right(reply: Reply, route: str, fields: dict[str, Any]) -> Reply:
    """Returns the reply with the log-probabilities of completions as OpenAI has them."""
    if route != COMPLETIONS or "logprobs" not in fields or reply.status != HTTPStatus.OK:
        return reply
    return reshaped(reply, _with_logprobs)


def _with_logprobs(answer: dict[str, Any], offset: int) -> tuple[dict[str, Any], int]:
    """Returns an answer with OpenAI's four lists per choice, and where in the text the next one begins."""
    for choice in answer.get("choices", ()):
        steps = (choice.get("logprobs") or {}).get("content")
        if steps is not None:
            choice["logprobs"], offset = openai_logprobs(steps, offset)
    return answer, offset


def _check_prompt(prompt: Any) -> None:
    prompts = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    for each in prompts:
        if not each or not (
            isinstance(each, str) or (isinstance(each, list) and all(type(t) is int for t in each))
        ):
            raise WrongFieldError("prompt must be a text, tokens, or a list of those, none of them empty.")
