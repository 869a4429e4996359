"""Which engine to serve a model with on a board: of those that run there and fit, the one predicted to be fastest.

One that has never run for this project is recommended where no other serves as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.errors import InputError
from edgewright.sizes import format_bytes
from edgewright_builder.fit.check import Check, FitVerdict, check, make_question, processor_of
from edgewright_builder.fit.engines import ENGINES, engine_traits
from edgewright_builder.fit.model_facts import ModelFacts
from edgewright_profiles import DeviceProfile

# Bandwidth tells a GPU from a CPU, and not two engines on one processor: predictions nearer than this are a tie. Then
# the first of `ENGINES` is taken, which has more to offer.
TIE = 1.5
RANKS = (FitVerdict.FITS, FitVerdict.UNCERTAIN, FitVerdict.DOES_NOT_FIT, FitVerdict.NOT_SERVED)


@dataclass(frozen=True)
class Recommendation:
    """The engine that is recommended, its answer, and the answers of the others."""

    answer: Check
    others: tuple[Check, ...]

    @property
    def engine(self) -> str:
        """Its name, as a recipe's `serving.engine` takes it."""
        return self.answer.plan.engine

    @property
    def why(self) -> str:
        """One sentence: what runs there, and what is predicted of it."""
        others = [_brief(other) for other in self.others]
        against = f"; {', '.join(others)}" if others else ""
        return f"{_brief(self.answer)}, is recommended for {self.answer.question.profile.name}{against}."


def recommend(
    model: ModelFacts,
    profile: DeviceProfile,
    *,
    budget_bytes: int | None = None,
    context_tokens: int | None = None,
    concurrency: int = 1,
) -> Recommendation:
    """Returns the engine for a model on a board. Raises InputError where the question makes no sense for any."""
    answers, refusal = [], None
    for traits in ENGINES.values():
        if not traits.recommended:
            continue
        try:
            question = make_question(
                model, profile, budget_bytes=budget_bytes, context_tokens=context_tokens,
                concurrency=concurrency, engine=traits.kind,
            )  # fmt: skip
        except InputError as error:  # a context that this engine can't serve
            refusal = refusal or error
            continue
        answers.append(check(question))
    if not answers:
        assert refusal is not None
        raise refusal
    best = _best(answers)
    return Recommendation(best, tuple(answer for answer in answers if answer is not best))


def _best(answers: Sequence[Check]) -> Check:
    rank = min(RANKS.index(answer.verdict) for answer in answers)
    nearest = [answer for answer in answers if RANKS.index(answer.verdict) == rank]
    nearest = [answer for answer in nearest if engine_traits(answer.plan.engine).tried] or nearest
    fastest = min(map(_seconds, nearest))
    return next(answer for answer in nearest if _seconds(answer) <= TIE * fastest)


def _seconds(answer: Check) -> float:
    """Returns the middle of the predicted range of a token's time."""
    return math.sqrt(answer.speed.tpot_seconds_min * answer.speed.tpot_seconds_max)


def _brief(answer: Check) -> str:
    """Returns an engine with its processor, JetPacks, speed and memory; or why it does not serve there."""
    kind, profile = answer.plan.engine, answer.question.profile
    if answer.why_not_served is not None:
        return (
            f"{kind} ({answer.why_not_served})"
            if profile.engine(kind) is None
            else f"{kind} does not run there"
        )
    support = profile.engine(kind)
    jetpacks = support.jetpacks if support is not None else ()
    newest = len(profile.jetpacks) > len(jetpacks) > 0
    on = f" on JetPack {' and '.join(jetpacks)} only" if newest else ""
    processor = processor_of(engine_traits(kind), profile).upper()
    speed, memory = answer.speed, answer.plan.memory
    rate = f"{1 / speed.tpot_seconds_max:.0f} to {1 / speed.tpot_seconds_min:.0f} tokens/s"
    fits = "" if answer.verdict is FitVerdict.FITS else f", which {answer.verdict.value}"
    yet = "" if engine_traits(kind).tried else ", which no board has run yet"
    return f"{kind} ({processor}{on}): {rate} in {format_bytes(memory.peak_bytes)} predicted{fits}{yet}"
