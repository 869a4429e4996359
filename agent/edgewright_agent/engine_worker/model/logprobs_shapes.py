"""Log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any

from edgewright_agent.engine_worker.backend import Text
from edgewright_agent.engine_worker.model.logprobs import TokenLogprobs

Told = Sequence[tuple[int, TokenLogprobs]]  # tokens and theirs


class Offsets:
    """Where in an answer's text each token begins, in characters."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def next(self, token: int) -> int:
        """Where it begins. One that ends inside a character adds none yet, and a special token none at all."""
        offset = self._offset
        if token not in self._text.special_ids:
            self._offset += len(self._utf8.decode(self._text.token_bytes(token)))
        return offset


LogprobsShape = Callable[[Told, Text, Offsets], dict[str, Any]]


def chat_logprobs(told: Told, text: Text, _: Offsets) -> dict[str, Any]:
    """`choices[].logprobs` of chat completions."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = text.token_bytes(token)
        return {"token": token_string(data), "logprob": logprob, "bytes": list(data)}

    content = [
        entry(token, said.logprob) | {"top_logprobs": [entry(*other) for other in said.top]}
        for token, said in told
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(told: Told, text: Text, offsets: Offsets) -> dict[str, Any]:
    """`choices[].logprobs` of completions.

    As there, a token is among its own alternatives even where it is none of the likeliest.
    """

    def string(token: int) -> str:
        return token_string(text.token_bytes(token))

    top = [
        {string(other): value for other, value in ((token, said.logprob), *said.top)} for token, said in told
    ]
    return {
        "tokens": [string(token) for token, _ in told],
        "token_logprobs": [said.logprob for _, said in told],
        "top_logprobs": top,
        "text_offset": [offsets.next(token) for token, _ in told],
    }


def token_string(data: bytes) -> str:
    """A token's text; where its bytes end inside a character, the bytes spelled out as OpenAI does."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
