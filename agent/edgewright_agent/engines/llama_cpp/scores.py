"""The log-probability of a given continuation, from a server that tells that of written tokens only.

The server writes the continuation: a grammar of token ids (`<[42]>`) lets it choose nothing else. What it says of each
token it wrote is the softmax of the model's own logits, before grammar and sampling (`post_sampling_probs` is off), and
the first of its top list is the model's choice. So a score is computed as text is generated, one step a token, by the
very kernels that serve. How a prompt was cut into slices changes the last digits, so each item's context is read anew.
It is read once: its continuations find all but its last token in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.errors import InputError, OutsideError
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.http.exchange import nonsense
from edgewright_agent.engines.protocol.requests import ContinuationScore

FORCING_BIAS = 1e6  # added to a logit; no model has one that large
LIST_TOKENS = (500, 1_000_000)  # the likeliest, and then as many as the vocabulary has


async def score_item(
    http: EngineClient, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], letter: int
) -> list[ContinuationScore]:
    """Returns the scores of one item's pairs of context and continuation, as tokens.

    `letter` is any token that ends a character.
    """
    scores, read = [], None
    for context, continuation in pairs:
        if context != read:
            await _read(http, context)
            read = context
        scores.append(await _score(http, context, continuation, letter))
    return scores


async def _read(http: EngineClient, context: Sequence[int]) -> None:
    """Lets the server read a context as if nothing were in its cache."""
    body = {"prompt": list(context), "n_predict": 0, "cache_prompt": False, "response_fields": ["stop"]}
    await http.post("/completion", body)


async def _score(
    http: EngineClient, context: Sequence[int], continuation: Sequence[int], letter: int
) -> ContinuationScore:
    if not continuation:
        return ContinuationScore(0.0, 0, is_greedy=True)
    steps = await _together(http, context, continuation)
    if steps is None:
        steps = await _one_by_one(http, context, continuation, letter)
    return ContinuationScore(
        sum(step.logprob for step in steps), len(continuation), all(step.is_greedy for step in steps)
    )


@dataclass(frozen=True)
class _Step:
    """One token of the continuation."""

    logprob: float
    is_greedy: bool


async def _together(
    http: EngineClient, context: Sequence[int], continuation: Sequence[int]
) -> list[_Step] | None:
    """Returns the steps of one request; None if the server does not write or does not tell all tokens.

    A grammar can't ask for the end of a sequence, servers before b7400 take no tokens in a grammar, and of a token
    that ends inside a character nothing is told.
    """
    grammar = "root ::= " + " ".join(f"<[{token}]>" for token in continuation)
    try:
        told = await _written(http, context, len(continuation), {"grammar": grammar})
    except (InputError, OutsideError):
        return None
    return [_step(entry) for entry in told] if [entry["id"] for entry in told] == list(continuation) else None


async def _one_by_one(
    http: EngineClient, context: Sequence[int], continuation: Sequence[int], letter: int
) -> list[_Step]:
    """Returns the same from a request a token, of which each finds the one before in the cache."""
    steps = []
    for index, token in enumerate(continuation):
        prompt = [*context, *continuation[:index]]
        told = await _written(http, prompt, 1, _forced(token))
        steps.append(_step(told[0]) if told else await _in_a_list(http, prompt, token, letter))
    return steps


async def _in_a_list(http: EngineClient, prompt: Sequence[int], token: int, letter: int) -> _Step:
    """Returns the step of a token that ends inside a character, found in the list that comes with another token."""
    for count in LIST_TOKENS:
        told = await _written(http, prompt, 1, {"n_probs": count} | _forced(letter))
        listed = told[0]["top_logprobs"] if told else []
        for rank, entry in enumerate(listed):
            if entry["id"] == token:
                return _Step(float(entry["logprob"]), is_greedy=rank == 0)
    raise nonsense(f"no log-probability of the token {token}")


def _step(entry: dict[str, Any]) -> _Step:
    return _Step(float(entry["logprob"]), entry["top_logprobs"][0]["id"] == entry["id"])


def _forced(token: int) -> dict[str, Any]:
    return {"logit_bias": [[token, FORCING_BIAS]]}


async def _written(
    http: EngineClient, prompt: Sequence[int], tokens: int, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns what the server tells of the tokens it wrote."""
    body = {
        "prompt": list(prompt),
        "n_predict": tokens,
        "temperature": 0,
        "n_probs": 1,
        "cache_prompt": True,
        "response_fields": ["completion_probabilities"],
    }
    answer = await http.post("/completion", body | options)
    told: list[dict[str, Any]] = answer.get("completion_probabilities") or []
    return told
