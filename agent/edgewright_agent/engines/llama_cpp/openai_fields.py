"""OpenAI's fields that llama-server would obey wrongly or not at all, and its answers put into OpenAI's shape.

It takes any model's name and any top_p, leaves `echo` out in silence, and gives completions the log-probabilities of
chats. Of several answers its `usage` has the tokens of one, and of several prompts those of the first: a request gets
one answer to one prompt here. Everything else is its own business.
"""

from __future__ import annotations

import reprlib
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

ANSWERS = ("n", "n_cmpl", "best_of")  # the fields that ask for several answers


def parse(route: str, body: bytes, model: str) -> dict[str, Any]:
    """Returns the fields as the server gets them. Raises WrongFieldError."""
    fields = parse_fields(route, body, model)
    if fields.get("echo"):
        raise WrongFieldError("llama.cpp does not repeat the prompt; leave echo out.")
    _take_one_answer(fields)
    if fields.get("return_token_ids") and (route != COMPLETIONS or fields.get("stream")):
        message = "llama.cpp names the tokens of a completion in one piece only; leave return_token_ids out."
        raise WrongFieldError(message)
    if route == COMPLETIONS:
        fields["prompt"] = _only_prompt(fields.get("prompt"))
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


def _take_one_answer(fields: dict[str, Any]) -> None:
    """Takes out the fields that ask for one answer. Refuses several, in the words of our worker."""
    for name in ANSWERS:
        value = fields.pop(name, 1)
        if value != 1:
            remedy = "leave it out or give 1"
            raise WrongFieldError(
                f"{name}: This engine does not have it; {remedy}, not {reprlib.repr(value)}."
            )


def _only_prompt(prompt: Any) -> str | list[int]:
    """Returns the one prompt, also out of a list of one. Refuses several, in the same words."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            remedy = f"send one, not {reprlib.repr(prompt)}"
            raise WrongFieldError(f"prompt: This engine takes one prompt a request; {remedy}.")
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise WrongFieldError("prompt must be a text or a list of tokens, and not empty.")
