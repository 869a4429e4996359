"""The golden prompt: what a board must say before it keeps a release, and where it may say something else."""

from __future__ import annotations

from collections.abc import Sequence
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


def golden_prompt(engine: GreedyEngine, prompts: Sequence[str]) -> dict[str, Any]:
    """Returns the prompt that says most about a board, as the manifest holds it."""
    found = {prompt: engine.greedy(prompt, GOLDEN_TOKENS) for prompt in prompts[:PROMPTS]}
    prompt = max(found, key=lambda each: found[each].certain_tokens)
    return {"prompt": prompt, "tokens": list(found[prompt].tokens), "leads": list(found[prompt].leads)}
