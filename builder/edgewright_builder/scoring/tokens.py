"""How a context and its continuation become tokens, and what several have in common.

The former is the rule of lm-evaluation-harness (`TemplateLM._encode_pair`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def shared_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens all sequences begin with in common, the last of none counted."""
    first, shortest = sequences[0], min(len(tokens) for tokens in sequences) - 1
    for place in range(shortest):
        if any(tokens[place] != first[place] for tokens in sequences):
            return place
    return shortest
