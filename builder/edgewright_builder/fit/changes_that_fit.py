"""What would make a configuration fit: each change alone, what it saves and what it is expected to cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgewright.errors import InputError, RefusedError
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.limits import largest_concurrency, largest_context, largest_depth
from edgewright_builder.fit.memory import Calibration, Configuration
from edgewright_builder.fit.plan import (
    DEPTH_FRACTION_MIN,
    BuildPlan,
    Wishes,
    make_plan,
    plan_for,
)
from edgewright_builder.fit.quality_loss import expected_divergence

CONTEXT_MIN_TOKENS = 256  # less is no use to anyone


@dataclass(frozen=True)
class Change:
    """One change that would make it fit."""

    title: str
    cost: str
    saves_bytes: int  # of the predicted peak; 0 where the budget grows instead
    expected_divergence: float  # more than now, nats per token
    fits: bool
    plan: BuildPlan


def ranked_changes(
    plan: BuildPlan, architecture: Architecture, calibration: Calibration
) -> tuple[Change, ...]:
    """Returns those that make it fit first, by what they cost; then the others, by what they save."""
    single = list(_single(plan, architecture, calibration))
    changes = [_change(plan, architecture, calibration, *each) for each in single]
    if not any(change.fits for change in changes):
        changes += [
            _change(plan, architecture, calibration, *each)
            for each in _together(plan, architecture, calibration)
        ]
    return tuple(sorted((change for change in changes if change.saves_bytes > 0), key=_rank))


def _rank(change: Change) -> tuple[bool, float, int]:
    return (not change.fits, round(change.expected_divergence, 6), -change.saves_bytes)


def _change(
    before: BuildPlan,
    architecture: Architecture,
    calibration: Calibration,
    title: str,
    cost: str,
    configuration: Configuration,
) -> Change:
    after = plan_for(architecture, configuration, before.budget_bytes, calibration)
    return Change(
        title=title,
        cost=cost,
        saves_bytes=before.memory.peak_bytes - after.memory.peak_bytes,
        expected_divergence=after.expected_divergence - before.expected_divergence,
        fits=after.bound.fits,
        plan=after,
    )


def _single(
    plan: BuildPlan, architecture: Architecture, calibration: Calibration
) -> Iterator[tuple[str, str, Configuration]]:
    """(title, cost, configuration) of every change of one thing."""
    m, traits = plan.configuration, engine_traits(plan.engine)
    for bits in traits.embedding_bits:
        if bits < m.embedding_bits:
            fewer = replace(m, embedding_bits=bits)
            yield f"embedding and head at {bits} bits", _cost(plan, architecture, fewer), fewer
    for bits in traits.kv_bits:
        if bits < m.kv_bits:
            yield f"KV cache at {bits} bits", "small, not measured here", replace(m, kv_bits=bits)
    group_size = architecture.largest_group_size()
    if group_size > m.group_size and traits.storage.block_weights is None:
        larger = replace(m, group_size=group_size)
        yield f"group size {group_size}", _cost(plan, architecture, larger), larger
    if m.concurrency > 1 and (most := largest_concurrency(plan, architecture, calibration)) > 0:
        title = f"{most} request{'s' * (most > 1)} at once"
        yield title, f"others of {m.concurrency} wait", replace(m, concurrency=most)
    if (tokens := _round_down(largest_context(plan, architecture, calibration))) >= CONTEXT_MIN_TOKENS:
        yield f"context of {tokens} tokens", "shorter prompts and answers", replace(m, context_tokens=tokens)
    shallowest = max(1, round(architecture.layers * DEPTH_FRACTION_MIN))
    layers = max(shallowest, largest_depth(plan, architecture, calibration))
    pruned = replace(m, layers=layers)
    yield f"{layers} of {architecture.layers} layers", _cost(plan, architecture, pruned), pruned


def _together(
    plan: BuildPlan, architecture: Architecture, calibration: Calibration
) -> Iterator[tuple[str, str, Configuration]]:
    """Where no single change is enough: fewer bits with a shorter context, and what `plan` would make."""
    m = plan.configuration
    bits = min(engine_traits(plan.engine).embedding_bits)
    small = plan_for(architecture, replace(m, embedding_bits=bits), plan.budget_bytes, calibration)
    tokens = _round_down(largest_context(small, architecture, calibration))
    if CONTEXT_MIN_TOKENS <= tokens < m.context_tokens:
        title = f"embedding and head at {bits} bits, context of {tokens} tokens"
        small_configuration = replace(m, embedding_bits=bits, context_tokens=tokens)
        cost = f"{_cost(plan, architecture, small_configuration)}, shorter prompts and answers"
        yield title, cost, small_configuration
    best = _longest_plan(plan, architecture, calibration)
    if best is None:
        return
    title = f"{best.layers} of {architecture.layers} layers, embedding and head at {best.embedding_bits} bits"
    if best.context_tokens < m.context_tokens:
        title += f", context of {best.context_tokens} tokens"
    yield title, _cost(plan, architecture, best), best


def _longest_plan(
    plan: BuildPlan, architecture: Architecture, calibration: Calibration
) -> Configuration | None:
    """Returns what `plan` would make for the context asked for, or for the first of its halves that fits; None for
    none.
    """
    tokens = plan.configuration.context_tokens
    while True:
        wishes = Wishes(tokens, plan.configuration.concurrency)
        try:
            return make_plan(architecture, wishes, plan.budget_bytes, calibration).configuration
        except (InputError, RefusedError):
            tokens //= 2
        if tokens < CONTEXT_MIN_TOKENS:
            return None


def _cost(plan: BuildPlan, architecture: Architecture, configuration: Configuration) -> str:
    nats = expected_divergence(architecture, configuration) - plan.expected_divergence
    return f"{nats:.2f} nats per token before distillation"


def _round_down(tokens: int) -> int:
    """Rounds down to a length people write: a multiple of 256."""
    return tokens // 256 * 256
