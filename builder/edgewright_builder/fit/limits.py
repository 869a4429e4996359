"""The most of something that still fits: context, concurrency, depth. Memory grows with each, so halving finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Calibration, predict_memory
from edgewright_builder.fit.plan import REQUESTS_MAX, BuildPlan, held_against


def largest(fits: Callable[[int], bool], most: int) -> int:
    """Returns the largest of 1 … `most` that fits, 0 if none does; `fits` holds up to some number and not beyond."""
    if fits(most):  # on a roomy board this is the only question
        return most
    low, high = 0, most - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def largest_context(plan: BuildPlan, architecture: Architecture, calibration: Calibration) -> int:
    """Tokens, up to the model's maximum; 0 where even one is too many."""
    return largest(
        lambda n: _with(plan, architecture, calibration, context_tokens=n), architecture.max_context_tokens
    )


def largest_concurrency(plan: BuildPlan, architecture: Architecture, calibration: Calibration) -> int:
    """Requests at once, each with the whole context; 0 where even one is too many."""
    return largest(lambda n: _with(plan, architecture, calibration, concurrency=n), REQUESTS_MAX)


def largest_depth(plan: BuildPlan, architecture: Architecture, calibration: Calibration) -> int:
    """Layers; 0 where even one is too many."""
    return largest(lambda n: _with(plan, architecture, calibration, layers=n), architecture.layers)


def _with(plan: BuildPlan, architecture: Architecture, calibration: Calibration, **change: int) -> bool:
    memory = predict_memory(architecture, replace(plan.configuration, **change), calibration)
    return held_against(plan.budget_bytes, memory, calibration).fits
