"""What the worker needs of a model: a tokenizer, and logits for tokens put after what a place in memory holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]  # (tokens or sequences, vocabulary)


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
    """The score of one continuation, as `edgewright_agent.engines.ContinuationScore`."""

    log_likelihood: float
    tokens: int
    is_greedy: bool


@dataclass(frozen=True)
class CachePlace:
    """Where the pool of KV cache holds one sequence: `width_tokens` from `start_tokens` on."""

    start_tokens: int
    width_tokens: int

    @property
    def end_tokens(self) -> int:
        """The first token of the pool after it."""
        return self.start_tokens + self.width_tokens


class Text(Protocol):
    """Between text and tokens."""

    @property
    def prefix_id(self) -> int:
        """The token that stands for an empty context."""
        ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`; `special` adds those the tokenizer puts around a text, such as BOS."""
        ...

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for the assistant's next turn. Raises InvalidRequestError."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that stand for no text."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """What the token stands for; a special token's name."""
        ...

    def decoder(self) -> Callable[[int], str]:
        """A function from each token in turn to the text it completes, which may be empty."""
        ...


class Backend(Protocol):
    """A loaded model and its pool of KV cache. `read`, `step` and `copy` are called from one thread only."""

    @property
    def text(self) -> Text:
        """The model's tokenizer."""
        ...

    @property
    def context_tokens(self) -> int:
        """Most tokens of one sequence."""
        ...

    @property
    def pool_tokens(self) -> int:
        """Tokens that all places have together."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens are 0 … vocab_size − 1."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        ...

    @property
    def slice_tokens(self) -> int:
        """Most tokens of one `read`, at least 2."""
        ...

    @property
    def adapter(self) -> Hashable:
        """The LoRA adapter for what begins now; None is the model alone."""
        ...

    def use_adapter(self, file: Path | None) -> None:
        """Let what begins from now on use this LoRA adapter, or none. Raises InvalidRequestError."""
        ...

    def read(self, place: CachePlace, past: int, tokens: Sequence[int], adapter: Any) -> Logits:
        """Puts `tokens` after the first `past` of `place`; logits after each of them. `adapter` was `self.adapter`."""
        ...

    def step(
        self, places: Sequence[CachePlace], pasts: Sequence[int], tokens: Sequence[int], adapter: Any
    ) -> Logits:
        """One token for each of several places of one width that lie side by side, in order."""
        ...

    def copy(self, source: CachePlace, target: CachePlace, tokens: int) -> None:
        """Lets `target` begin with the first `tokens` of `source`; they may overlap."""
        ...
