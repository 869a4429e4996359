"""What the worker needs of a model: a tokenizer, and logits for tokens put after what a row of the cache holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]  # (tokens or sequences, vocabulary)
SHARES_MAX = 8  # that a context of the KV cache is divided into


class InvalidRequestError(Exception):
    """The request is wrong; `code` is the OpenAI error code, `status` the HTTP status."""

    def __init__(self, message: str, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is drawn. Temperature 0 is greedy; without a seed each run differs."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class TokenScores:
    """The log-likelihood of one continuation, as `edgewright_agent.engines.ContinuationScore`."""

    log_likelihood: float
    tokens: int
    is_greedy: bool


@dataclass(frozen=True)
class ChatPrompt:
    """What a chat template turns into a prompt."""

    messages: Sequence[Mapping[str, Any]]  # each with `role` and `content`, perhaps `name`
    documents: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)  # more names for the template


@dataclass(frozen=True)
class CachePlace:
    """Where the KV cache holds one sequence: `width_tokens` from `start_tokens` on."""

    start_tokens: int
    width_tokens: int

    @property
    def end_tokens(self) -> int:
        """The first token of the cache after it."""
        return self.start_tokens + self.width_tokens


@dataclass(frozen=True)
class CacheLayout:
    """How the KV cache is divided: a context into `shares`, a power of two; a row has 1, 2, 4 … of them."""

    share_tokens: int
    shares: int

    def width_tokens(self, sequence_tokens: int) -> int:
        """Returns the tokens of the row that a sequence of that length gets."""
        width = self.share_tokens
        while width < sequence_tokens:
            width *= 2
        return width

    def pool_tokens(self, concurrency: int) -> int:
        """Returns the tokens of a cache for so many whole contexts."""
        return self.share_tokens * self.shares * concurrency


def layout_of(context_tokens: int, window_tokens: int = 0) -> CacheLayout:
    """Returns the layout of a cache for such contexts, in rows that are no narrower than the attention's window.

    GroupQueryAttention takes no row that its window (`local_window_size`) does not fit into. Where the window is wider
    than the context, so is the row; what lies beyond the context is never written, and takes no memory.
    """
    shares = SHARES_MAX
    while shares > 1 and -(-context_tokens // shares) < window_tokens:
        shares //= 2
    return CacheLayout(max(-(-context_tokens // shares), window_tokens), shares)


class Text(Protocol):
    """Turns text into tokens and back. `encode` and `chat` may be called from several threads at once."""

    @property
    def prefix_id(self) -> int:
        """The token that stands for an empty context."""
        ...

    @property
    def longest_token_bytes(self) -> int:
        """The bytes of text that the longest token stands for."""
        ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Returns the tokens of `text`; with `special` also those that the tokenizer puts around it, such as BOS.

        Raises InvalidRequestError for a text that the tokenizer can't read.
        """
        ...

    def chat(self, chat: ChatPrompt) -> str:
        """Returns the prompt for the assistant's next turn. Raises InvalidRequestError."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """The tokens that stand for no text."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Returns what the token stands for; a special token's name."""
        ...

    def decoder(self) -> Callable[[int], str]:
        """Returns a function from each token in turn to the text it completes, which may be empty."""
        ...


class Backend(Protocol):
    """A loaded model and its KV cache. `read`, `step` and `copy` are called from one thread only."""

    @property
    def text(self) -> Text:
        """The model's tokenizer."""
        ...

    @property
    def context_tokens(self) -> int:
        """The most tokens of one sequence."""
        ...

    @property
    def pool_tokens(self) -> int:
        """The tokens that the whole cache holds."""
        ...

    @property
    def layout(self) -> CacheLayout:
        """How the cache is divided into rows."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens are 0 … vocab_size − 1."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end a text."""
        ...

    @property
    def slice_tokens(self) -> int:
        """The most tokens of one `read`, at least 2."""
        ...

    @property
    def slice_bytes(self) -> int:
        """The memory that one `read` takes while it runs, which the plan counts."""
        ...

    @property
    def adapter(self) -> Hashable:
        """The LoRA adapter of sequences that begin now; None is the model alone."""
        ...

    def use_adapter(self, file: Path | None) -> None:
        """Lets sequences that begin from now on use this LoRA adapter, or none. Raises InvalidRequestError."""
        ...

    def read(self, place: CachePlace, past: int, tokens: Sequence[int], adapter: Any) -> Logits:
        """Puts `tokens` after the first `past` of `place`; returns logits after each. `adapter` was `self.adapter`."""
        ...

    def step(
        self, places: Sequence[CachePlace], pasts: Sequence[int], tokens: Sequence[int], adapter: Any
    ) -> Logits:
        """Puts one token into each of several places of one width that lie side by side, in order."""
        ...

    def copy(self, source: CachePlace, target: CachePlace, tokens: int) -> None:
        """Lets `target` begin with the first `tokens` of `source`; they may overlap."""
        ...
