"""Log-probabilities of a generated token and of its alternatives, and OpenAI's two shapes of them.

They are the model's own: at temperature 1, before nucleus sampling and before a grammar rules anything out.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright_agent.engine_worker.model.backend import Logits, Text


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probability of one generated token, in nats, and of the likeliest tokens in its place."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # (token, log-probability), likeliest first


def token_logprobs(row: Logits, token: int, count: int) -> TokenLogprobs:
    """Returns the token's log-probability and `count` alternatives, from the logits of one position (vocabulary,).

    Of equally likely tokens the lower comes first.
    """
    highest = row.max()
    normaliser = float(highest) + float(np.log(np.exp(row - highest, dtype=np.float32).sum(dtype=np.float64)))
    top = np.argpartition(-row, min(count, row.size - 1))[:count] if count else np.empty(0, np.intp)
    ordered = sorted(((float(row[index]) - normaliser, int(index)) for index in top), key=_likeliest)
    return TokenLogprobs(float(row[token]) - normaliser, tuple((index, value) for value, index in ordered))


def _likeliest(pair: tuple[float, int]) -> tuple[float, int]:
    return -pair[0], pair[1]


Reported = Sequence[tuple[int, TokenLogprobs]]  # tokens of an answer, each with its log-probabilities


class TextOffsets:
    """Counts where each token begins in an answer's text, in characters."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def next(self, token: int) -> int:
        """Returns the offset of the next token.

        A token that ends inside a character does not move the offset yet, and a special token never does.
        """
        offset = self._offset
        if token not in self._text.special_ids:
            self._offset += len(self._utf8.decode(self._text.token_bytes(token)))
        return offset


LogprobsShape = Callable[[Reported, Text, TextOffsets], dict[str, Any]]


def chat_logprobs(reported: Reported, text: Text, _: TextOffsets) -> dict[str, Any]:
    """Returns `choices[].logprobs` of chat completions."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = text.token_bytes(token)
        return {"token": token_string(data), "logprob": logprob, "bytes": list(data)}

    content = [
        entry(token, logprobs.logprob) | {"top_logprobs": [entry(*other) for other in logprobs.top]}
        for token, logprobs in reported
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(reported: Reported, text: Text, offsets: TextOffsets) -> dict[str, Any]:
    """Returns `choices[].logprobs` of completions.

    As OpenAI does, it lists a token among its own alternatives even where it is none of the likeliest.
    """

    def string(token: int) -> str:
        return token_string(text.token_bytes(token))

    top = [
        {string(other): value for other, value in ((token, logprobs.logprob), *logprobs.top)}
        for token, logprobs in reported
    ]
    return {
        "tokens": [string(token) for token, _ in reported],
        "token_logprobs": [logprobs.logprob for _, logprobs in reported],
        "top_logprobs": top,
        "text_offset": [offsets.next(token) for token, _ in reported],
    }


def token_string(data: bytes) -> str:
    """Returns a token's text; where it ends inside a character, its bytes spelled out as OpenAI does."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
