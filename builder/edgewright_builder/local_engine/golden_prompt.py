"""The golden prompt: what a board must say before it keeps a release, and where it may say something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

from edgewright.manifest import NEAR_TIE_NATS

GOLDEN_TOKENS = 16
PROMPTS = 16  # looked at


@dataclass(frozen=True)
class Greedy:
    """A greedy completion, and how far ahead of the runner-up each token was."""

    tokens: tuple[int, ...]
    leads: tuple[float, ...]  # nats

    @property
    def certain_tokens(self) -> int:
        """How many come on every board: those before the first near tie."""
        return sum(1 for _ in takewhile(lambda lead: lead >= NEAR_TIE_NATS, self.leads))


class GreedyEngine(Protocol):
    """What completes a prompt: the engine that will serve."""

    def greedy(self, prompt: str, max_tokens: int) -> Greedy:
        """Generates at most `max_tokens`."""
        ...


OpenEngine = Callable[[], AbstractContextManager[GreedyEngine]]


def golden_prompt(open_engines: Sequence[OpenEngine], prompts: Sequence[str]) -> dict[str, Any]:
    """Returns the prompt that says most about a board, as the manifest holds it.

    The engines are the same model in each arithmetic that a board may compute in. The tokens are the first one's.
    """
    looked_at = prompts[:PROMPTS]
    answers = [_answers(open_engine, looked_at) for open_engine in open_engines]
    agreed = {prompt: agreement([each[prompt] for each in answers]) for prompt in looked_at}
    prompt = max(agreed, key=lambda each: agreed[each].certain_tokens)
    return {"prompt": prompt, "tokens": list(agreed[prompt].tokens), "leads": list(agreed[prompt].leads)}


def agreement(answers: Sequence[Greedy]) -> Greedy:
    """Returns the first answer with the smallest lead of all for each token; 0 from where they go apart."""
    first = answers[0]
    together = [set(tokens) for tokens in zip(*(answer.tokens for answer in answers), strict=False)]
    same = sum(1 for _ in takewhile(lambda choices: len(choices) == 1, together))
    leads = [min(answer.leads[index] for answer in answers) for index in range(same)]
    return Greedy(first.tokens, (*leads, *(0.0 for _ in first.tokens[same:])))


def _answers(open_engine: OpenEngine, prompts: Sequence[str]) -> dict[str, Greedy]:
    with open_engine() as engine:
        return {prompt: engine.greedy(prompt, GOLDEN_TOKENS) for prompt in prompts}
