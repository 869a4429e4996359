"""What the HTTP application needs of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class InvalidRequestError(Exception):
    """The request is wrong; `code` is the OpenAI error code, `status` the HTTP status."""

    def __init__(self, message: str, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Temperature 0 is greedy; without a seed each run differs."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class TokenScores:
    """Of one continuation, as `edgewright_agent.engines.Score`."""

    log_likelihood: float
    tokens: int
    is_greedy: bool


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

    def decoder(self) -> Callable[[int], str]:
        """A function from each token in turn to the text it completes, which may be empty."""
        ...


class Backend(Protocol):
    """A loaded model. Its iterators yield None where the caller may take a breath, or stop."""

    @property
    def text(self) -> Text:
        """The model's tokenizer."""
        ...

    @property
    def context_tokens(self) -> int:
        """Most tokens of one sequence."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens are 0 … vocab_size − 1."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        ...

    def use_adapter(self, file: Path | None) -> None:
        """Let what begins from now on use this LoRA adapter, or none. Raises InvalidRequestError."""
        ...

    def generate(self, prompt: Sequence[int], max_tokens: int, sampling: Sampling) -> Iterator[int | None]:
        """Up to `max_tokens` tokens; the end-of-sequence token does not end it."""
        ...

    def score(
        self, context: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> Iterator[TokenScores | None]:
        """One TokenScores per continuation of `context`, in order. `context` is not empty."""
        ...
