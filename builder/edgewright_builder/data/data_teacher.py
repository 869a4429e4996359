"""What T1, the model that writes the data, must be able to do. `local_teacher.py` and `served_teacher.py` do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Chat = list[dict[str, str]]  # [{"role": "system" | "user" | "assistant", "content": text}, ...]


@dataclass(frozen=True)
class TeacherSampling:
    """How T1 samples. The defaults are the paper's (arXiv 2601.09865, section 3.1)."""

    temperature: float = 0.7
    top_p: float = 0.95


@dataclass(frozen=True)
class Completion:
    """One answer of T1. `complete` is False if `max_tokens` cut it."""

    text: str
    tokens: int
    complete: bool
    remark: str = ""  # why the text may be empty, for people


@dataclass(frozen=True)
class Rating:
    """A rating of T1 from 1 to 5; None where what it wrote names none."""

    score: float | None
    text: str


class Client(Protocol):
    """T1. Equal arguments give equal results, as far as the model behind it allows."""

    @property
    def identity(self) -> str:
        """The model's name for the journal: results of another identity are never reused."""

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_tokens: int,
        sampling: TeacherSampling,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[Completion]:
        """Returns one completion per chat, in order, each cut before the first of the strings in `stop`."""

    def rate(self, chats: Sequence[Chat], *, seed: int) -> list[Rating]:
        """Returns one rating per chat, in order."""

    def relevance(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Returns per (question, answer) how much the question raises the answer's log-likelihood, in nats per token.

        Raises InputError if T1 gives no log-likelihoods.
        """


def without_system(chat: Chat) -> Chat:
    """Returns the chat with what a leading system turn says at the beginning of the first question."""
    if len(chat) < 2 or chat[0]["role"] != "system":
        return chat
    first = {**chat[1], "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
    return [first, *chat[2:]]


def cut_at_stop(text: str, stop: Sequence[str]) -> str | None:
    """Returns the text before the first stop string, or None if the text holds none."""
    ends = [text.index(word) for word in stop if word in text]
    return text[: min(ends)] if ends else None
