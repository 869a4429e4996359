"""Writes letters: each follows from those before it, the temperature and the seed, as a model's tokens do."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.edge_llm_stub.protocol import ChatCompletionRequest

EOS = 2
LETTERS = [ord(letter) for letter in "abcdefghijklmnopqrstuvwxyz .,"]
END_IN = 40  # of so many drawn tokens one ends the text
TEMPLATE = "<|{role}|>{content}\n"
RESERVED_TOKENS = 1


class InputTooLongError(Exception):
    """A prompt that the engine was not built for."""


@dataclass(frozen=True)
class Step:
    """One token, its log-probability, and alternatives to it."""

    token: int
    text: str
    logprob: float
    finish: str | None  # "stop" or "length" with the last one


def prompt_of(request: ChatCompletionRequest) -> list[int]:
    """The prompt's tokens, which are its bytes."""
    if request.apply_chat_template:
        text = "".join(TEMPLATE.format(**message) for message in request.messages) + "<|assistant|>"
    else:
        text = "".join(str(message["content"]) for message in request.messages)
    return list(text.encode())


def write(request: ChatCompletionRequest, input_max: int, capacity: int) -> tuple[int, Iterator[Step]]:
    """Returns the prompt's length, and the steps that follow it. Raises InputTooLongError."""
    prompt = prompt_of(request)
    if len(prompt) > input_max:
        message = (
            f"EDGELLM_INPUT_TOO_LONG: input length {len(prompt)} exceeds engine max_input_len {input_max}"
        )
        raise InputTooLongError(f"{message} (rebuild engine with a larger --maxInputLen)")
    room = min(request.tokens_max, capacity - len(prompt) - RESERVED_TOKENS)
    return len(prompt), _held_back(_steps(request, prompt, room), request.stops)


def _steps(request: ChatCompletionRequest, prompt: list[int], room: int) -> Iterator[Step]:
    seed = secrets.randbits(64) if request.seed is None else request.seed
    biased = {int(token) for token, bias in (request.logit_bias or {}).items() if bias <= -100}
    tokens = list(prompt)
    for index in range(room):
        what = bytes(token % 256 for token in tokens) + (str(seed).encode() if request.temperature else b"")
        draw = int.from_bytes(hashlib.sha256(what).digest()[:4], "big")
        ends = bool(request.temperature) and draw % END_IN == 0 and EOS not in biased
        token = EOS if ends else LETTERS[draw % len(LETTERS)]
        tokens.append(token)
        text = "" if ends else chr(token)
        yield Step(token, text, -0.1, "stop" if ends else "length" if index == room - 1 else None)
        if ends:
            return


def _held_back(steps: Iterator[Step], stops: list[str]) -> Iterator[Step]:
    """Ends at a stop string, and holds text back that may become one: a later step brings it."""
    pending = ""
    for step in steps:
        pending += step.text
        found = min((pending.index(stop) for stop in stops if stop in pending), default=None)
        if found is not None:
            yield Step(step.token, pending[:found], step.logprob, "stop")
            return
        keep = 0 if step.finish else max((_overlap(pending, stop) for stop in stops), default=0)
        ready, pending = pending[: len(pending) - keep], pending[len(pending) - keep :]
        yield Step(step.token, ready, step.logprob, step.finish)


def _overlap(text: str, stop: str) -> int:
    """How much of the text's end may be the beginning of the stop string."""
    return next((size for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size])), 0)
