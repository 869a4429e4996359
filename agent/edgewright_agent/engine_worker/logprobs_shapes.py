"""Log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgewright_agent.engine_worker.logprobs import TokenLogprobs

Told = Sequence[tuple[int, TokenLogprobs]]  # tokens and theirs
TokenBytes = Callable[[int], bytes]
LogprobsShape = Callable[[Told, TokenBytes, int], dict[str, Any]]


def chat_logprobs(told: Told, token_bytes: TokenBytes, _: int) -> dict[str, Any]:
    """`choices[].logprobs` of chat completions."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = token_bytes(token)
        return {"token": token_string(data), "logprob": logprob, "bytes": list(data)}

    content = [
        entry(token, said.logprob) | {"top_logprobs": [entry(*other) for other in said.top]}
        for token, said in told
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(told: Told, token_bytes: TokenBytes, offset: int) -> dict[str, Any]:
    """`choices[].logprobs` of completions; the first token begins at character `offset` of the text.

    As there, a token is among its own alternatives even where it is none of the likeliest.
    """
    tokens = [token_string(token_bytes(token)) for token, _ in told]
    offsets = [offset]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    top = [
        {token_string(token_bytes(other)): value for other, value in ((token, said.logprob), *said.top)}
        for token, said in told
    ]
    return {
        "tokens": tokens,
        "token_logprobs": [said.logprob for _, said in told],
        "top_logprobs": top,
        "text_offset": offsets,
    }


def token_string(data: bytes) -> str:
    """A token's text; where its bytes end inside a character, the bytes spelled out as OpenAI does."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
