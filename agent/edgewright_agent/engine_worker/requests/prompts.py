"""Text to tokens, bounded in memory and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.model.backend import InvalidRequestError, Text
from edgewright_agent.engine_worker.requests.limits import RequestLimits
from edgewright_agent.engine_worker.requests.threads import Preparation

PIECE_CHARACTERS = (
    4096  # tokenized in a millisecond, and with a regular expression that backtracks in seconds
)
# A cut may part a word, and so make tokens that the whole text does not have.
EXTRA_TOKENS_PER_CUT = 32
CUT_CHARACTERS = 256  # in which a blank is looked for to cut at


class Encoder(Protocol):
    """What turns text into tokens: a `Text`, or one that is bounded."""

    @property
    def prefix_id(self) -> int:
        """The token that stands for an empty context."""
        ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See `Text`."""
        ...


@dataclass(frozen=True)
class BoundedEncoder:
    """Encodes the texts of one request, within the limits and until its time is over."""

    text: Text
    limits: RequestLimits
    prompt_memory: Turns  # whoever takes much memory for a prompt has its turn
    preparation: Preparation

    @property
    def prefix_id(self) -> int:
        """See `Encoder`."""
        return self.text.prefix_id

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Returns the tokens. Raises InvalidRequestError for a text that can't fit the context, or takes too long.

        A long text is tokenized in pieces first. That costs as much time again, and shows before the whole takes its
        memory whether it is too long, and whether this tokenizer can read it in time.
        """
        self.preparation.stage = "tokenizing its prompt"
        self.limits.check_text(text)
        self.preparation.check()
        if len(text) <= PIECE_CHARACTERS:
            return self.text.encode(text, special=special)
        self._try_pieces(text)
        with self.prompt_memory:
            return self.text.encode(text, special=special)

    def _try_pieces(self, text: str) -> None:
        tokens, context_tokens = 0, self.limits.context_tokens
        for piece in pieces(text):
            tokens += len(self.text.encode(piece, special=False)) - EXTRA_TOKENS_PER_CUT
            if tokens > context_tokens:
                message = f"The prompt has more than {tokens} tokens; the context holds {context_tokens}."
                raise InvalidRequestError(message, "context_length_exceeded")
            self.preparation.check()


def pieces(prompt: str) -> Iterator[str]:
    """Yields the text in pieces, cut before a blank where there is one near."""
    start = 0
    while start < len(prompt):
        end = start + PIECE_CHARACTERS
        if end < len(prompt):
            blank = prompt.rfind(" ", end - CUT_CHARACTERS, end)
            end = blank if blank > start else end
        yield prompt[start:end]
        start = end


def split_tokens(encoder: Encoder, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Returns the tokens of context and continuation, split as lm-evaluation-harness 0.4.13 does (`_encode_pair`).

    Trailing blanks of the context belong to the continuation. The continuation's tokens are those of the
    whole after as many as the context alone has. An empty context is the tokenizer's prefix token.
    """
    if not context:
        tokens = encoder.encode(continuation, special=False)
        prefix = encoder.prefix_id
        return ([prefix], tokens) if tokens[:1] != [prefix] else (tokens[:1], tokens[1:])
    kept = context.rstrip()
    if not kept:
        return split_tokens(encoder, "", context + continuation)
    whole = encoder.encode(context + continuation, special=True)
    head = encoder.encode(kept, special=True)
    return head, whole[len(head) :]


def check_context(prompt_tokens: int, more_tokens: int, context_tokens: int) -> None:
    """Raises InvalidRequestError (`context_length_exceeded`) if the sequence does not fit the context."""
    if prompt_tokens + more_tokens > context_tokens:
        raise InvalidRequestError(
            f"The prompt has {prompt_tokens} tokens and {more_tokens} more are asked for, together "
            f"{prompt_tokens + more_tokens}; the context holds {context_tokens}.",
            "context_length_exceeded",
        )
