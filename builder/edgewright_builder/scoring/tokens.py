"""How a context and its continuation become tokens: the rule of lm-evaluation-harness (`TemplateLM._encode_pair`)."""

from __future__ import annotations

from collections.abc import Callable

Encode = Callable[[str], list[int]]


def encode_pair(
    encode: Encode, context: str, continuation: str, prefix_token: int
) -> tuple[list[int], list[int]]:
    """Returns (context tokens, continuation tokens), neither empty.

    Blanks at the context's end go to the continuation, so that " word" stays one token. The continuation's tokens are
    those of the whole after the context's own. An empty context is the prefix token (BOS or EOS).
    """
    if not context:
        tokens = encode(continuation)
        return ([prefix_token], tokens) if tokens[:1] != [prefix_token] else (tokens[:1], tokens[1:])
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    start = encode(stripped)
    return start, encode(stripped + continuation)[len(start) :]
