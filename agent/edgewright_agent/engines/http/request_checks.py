"""What our worker refuses by itself, and other engines would accept or word in their own way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgewright.errors import BusyError, InputError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.protocol.requests import GenerationRequest

STOPS_MAX = 8
ROLES = ("system", "user", "assistant")
WAITING_MAX = 16  # requests that wait in an engine whose own queue has no end


class BoundedQueue:
    """As many requests as an engine works on, and at most WAITING_MAX that wait for it."""

    def __init__(self, at_once: int) -> None:
        self._places = at_once + WAITING_MAX

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place. Raises BusyError (`OVERLOADED`) if there is none."""
        if self._places == 0:
            raise BusyError("The engine's queue is full; try again soon.", Reason.REASON_OVERLOADED)
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1


def check_request(request: GenerationRequest) -> None:
    """Raises InputError for what the engine would accept and our worker does not."""
    if request.prompt == "" or request.messages == []:
        raise InputError("The prompt is empty; give a prompt or at least one message.")
    if request.max_tokens < 0:
        raise InputError(f"max_tokens is {request.max_tokens}; it must be 0 or more.")
    if len(request.stop) > STOPS_MAX or "" in request.stop:
        raise InputError(f"{len(request.stop)} stop strings; at most {STOPS_MAX}, none of them empty.")
    strange = [role for message in request.messages or () if (role := message.get("role")) not in ROLES]
    if strange:
        raise InputError(f"There is no role {strange[0]!r}; there are {', '.join(ROLES)}.")


def check_one_input(request: GenerationRequest) -> None:
    """Raises InputError unless there is either a prompt or messages."""
    if (request.prompt is None) == (request.messages is None):
        raise InputError("A request has either a prompt or messages; give one of them.")


def check_sampling(temperature: float, top_p: float) -> None:
    """Raises InputError for values that mean nothing."""
    if not temperature >= 0 or temperature == float("inf"):
        raise InputError(f"temperature is {temperature:g}; it must be 0 or more.")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p:g}; it must be above 0 and at most 1.")


def context_exceeded(prompt_tokens: int, more_tokens: int, context_tokens: int) -> InputError:
    """Returns the error that the worker raises, in its words."""
    return InputError(
        f"The prompt has {prompt_tokens} tokens and {more_tokens} more are asked for, together "
        f"{prompt_tokens + more_tokens}; the context holds {context_tokens}.",
        Reason.REASON_CONTEXT_EXCEEDED,
    )
