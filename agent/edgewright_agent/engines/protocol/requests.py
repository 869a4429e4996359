"""What an engine is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
UNTOLD_ID = 2**32 - 1  # of a token that the engine counted and did not name


@dataclass(frozen=True)
class GenerationRequest:
    """One request. Exactly one of `prompt` (taken as it is) and `messages` (put into the chat template) is given."""

    prompt: str | None = None
    messages: Sequence[Mapping[str, str]] | None = None  # each {"role": …, "content": …}
    max_tokens: int = 0  # 0: as many as the context allows
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # in (0, 1]
    seed: int | None = None
    stop: Sequence[str] = ()  # at most 8
    ignore_eos: bool = False  # generate until max_tokens
    exact: bool = False  # every token's id counts, and not when it came


@dataclass(frozen=True)
class Token:
    """One generated token. Its text may be empty: a token can end inside a character or a stop string."""

    text: str
    id: int  # or UNTOLD_ID
    at_seconds: float | None = (
        None  # when it was computed, on the monotonic clock; None if the engine does not say
    )


def tokens_with_text(ids: Sequence[int], text: str, at_seconds: float | None = None) -> list[Token]:
    """Returns tokens that came together: their text belongs to the last."""
    return [
        Token(text if index == len(ids) - 1 else "", token, at_seconds) for index, token in enumerate(ids)
    ]


@dataclass(frozen=True)
class Finish:
    """The last item of a generation."""

    reason: FinishReason
    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class Reply:
    """An engine's HTTP answer. The head is complete; the body is still arriving."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    pieces: AsyncGenerator[
        bytes, None
    ]  # of the body, as they arrive; raises OutsideError if the connection breaks

    async def read(self) -> bytes:
        """Returns the whole body."""
        return b"".join([piece async for piece in self.pieces])


@dataclass(frozen=True)
class ScoreItem:
    """A context and the continuations to be scored after it."""

    context: str
    continuations: Sequence[str]


@dataclass(frozen=True)
class ContinuationScore:
    """The log-likelihood of one continuation."""

    log_likelihood: float  # natural logarithm, summed over the tokens
    tokens: int
    is_greedy: bool  # every token was the most likely one
