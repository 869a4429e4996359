"""The plan: the best configuration whose predicted peak meets the budget.

"Best" is the least expected divergence from the 16-bit model (`quality_loss`), then the longest context, then the most
requests at once, then the least memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from edgewright.errors import InputError, RefusedError
from edgewright.sizes import format_bytes
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.engines.traits import EngineTraits
from edgewright_builder.fit.meets_budget import PeakBound
from edgewright_builder.fit.memory import Calibration, Configuration, PeakMemory, predict_memory
from edgewright_builder.fit.quality_loss import expected_divergence

# Group sizes are put in order by memory alone: what 32 gains over 64 was within the noise (docs/quantization.md).
DEPTH_FRACTION_MIN = 0.5  # below half its layers a model is another model
REQUESTS_MAX = 1024  # at once: more than any board serves
CONCURRENCY_MAX = 8  # the most that `plan` asks for by itself


@dataclass(frozen=True)
class Wishes:
    """What is asked for; None leaves it to the plan."""

    context_tokens: int
    concurrency: int = 1
    layers: int | None = None
    group_size: int | None = None
    embedding_bits: int | None = None
    at_least: bool = False  # context and concurrency may come out larger


@dataclass(frozen=True)
class BuildPlan:
    """One configuration, what is predicted for it, and the budget it is held against."""

    engine: str
    configuration: Configuration
    memory: PeakMemory
    budget_bytes: int
    error_bytes: int  # half-width of the prediction's interval
    calibrated_on: str
    layers_full: int
    expected_divergence: float  # KL to the 16-bit model, nats per token, before distillation and recovery

    @property
    def bound(self) -> PeakBound:
        """The predicted peak held against the budget."""
        return PeakBound(self.memory.peak_bytes, self.error_bytes, self.budget_bytes)


def held_against(budget_bytes: int, memory: PeakMemory, calibration: Calibration) -> PeakBound:
    """Returns the predicted peak, with its error, held against a budget."""
    peak_bytes = memory.peak_bytes
    return PeakBound(peak_bytes, round(calibration.error_fraction * peak_bytes), budget_bytes)


@dataclass(frozen=True)
class PlanSearch:
    """All that fits, reduced to what nothing beats, and the one that is made."""

    chosen: BuildPlan
    front: tuple[
        BuildPlan, ...
    ]  # no other has less loss, less memory, more context and more concurrency at once
    candidates: int
    fitting: int


def plan_for(
    architecture: Architecture, configuration: Configuration, budget_bytes: int, calibration: Calibration
) -> BuildPlan:
    """Returns the prediction for one configuration."""
    memory = predict_memory(architecture, configuration, calibration)
    return BuildPlan(
        engine=calibration.engine,
        configuration=configuration,
        memory=memory,
        budget_bytes=budget_bytes,
        error_bytes=held_against(budget_bytes, memory, calibration).error_bytes,
        calibrated_on=str(calibration),
        layers_full=architecture.layers,
        expected_divergence=expected_divergence(architecture, configuration),
    )


def make_plan(
    architecture: Architecture, wishes: Wishes, budget_bytes: int, calibration: Calibration
) -> BuildPlan:
    """Returns the plan with the least expected loss that fits.

    Raises RefusedError naming the smallest budget that would do and what it costs, where nothing fits, and InputError
    for what this model can't be given.
    """
    return search_plans(architecture, wishes, budget_bytes, [calibration]).chosen


def search_plans(
    architecture: Architecture, wishes: Wishes, budget_bytes: int, calibrations: Sequence[Calibration]
) -> PlanSearch:
    """Returns every configuration of every engine, held against the budget. Raises as `make_plan`."""
    check_wishes(architecture, wishes)
    plans = [
        plan_for(architecture, configuration, budget_bytes, calibration)
        for calibration in calibrations
        for configuration in candidates(architecture, wishes, calibration.engine)
    ]
    fitting = [plan for plan in plans if plan.bound.fits]
    if not fitting:
        smallest = min(plans, key=lambda plan: plan.memory.peak_bytes)
        raise RefusedError(_nothing_fits(smallest, budget_bytes), Reason.REASON_MEMORY_BUDGET)
    return PlanSearch(min(fitting, key=_preference), _front(fitting), len(plans), len(fitting))


def candidates(architecture: Architecture, wishes: Wishes, engine: str) -> Iterator[Configuration]:
    """Yields every configuration the engine could be given."""
    traits = engine_traits(engine)
    for layers, group_size, embedding_bits, kv_bits, context_tokens, concurrency in product(
        _depths(architecture, wishes),
        (wishes.group_size,) if wishes.group_size else _group_sizes(architecture, traits),
        (wishes.embedding_bits,) if wishes.embedding_bits else traits.embedding_bits,
        traits.kv_bits,
        _contexts(architecture, wishes),
        _concurrencies(wishes),
    ):
        yield Configuration(
            layers=layers,
            weight_bits=traits.weight_bits,
            group_size=group_size,
            embedding_bits=embedding_bits,
            context_tokens=context_tokens,
            concurrency=concurrency,
            kv_bits=kv_bits,
        )


def _group_sizes(architecture: Architecture, traits: EngineTraits) -> tuple[int, ...]:
    """Returns the group sizes worth comparing: one alone where an engine stores each in as many bytes."""
    sizes = traits.plan_group_sizes(architecture)
    return sizes if traits.storage.block_weights is None else sizes[:1]


def with_group_size(
    plan: BuildPlan, architecture: Architecture, group_size: int, calibration: Calibration
) -> BuildPlan:
    """Returns the same plan at another group size, which the search may choose."""
    configuration = replace(plan.configuration, group_size=group_size)
    return plan_for(architecture, configuration, plan.budget_bytes, calibration)


def check_wishes(architecture: Architecture, wishes: Wishes) -> None:
    """Raises InputError for what this model can't be given."""
    if wishes.context_tokens > architecture.max_context_tokens:
        because = f" ({architecture.context_limited_by})" if architecture.context_limited_by else ""
        raise InputError(
            f"A context of {wishes.context_tokens} tokens is asked for; "
            f"the model's maximum is {architecture.max_context_tokens}{because}."
        )
    if wishes.context_tokens < 1 or wishes.concurrency < 1:
        raise InputError(
            f"A context of {wishes.context_tokens} tokens for {wishes.concurrency} requests is asked for; "
            "both must be at least 1."
        )
    if wishes.concurrency > REQUESTS_MAX:
        raise InputError(
            f"More than {REQUESTS_MAX:,} requests at once are asked for, which no board serves; give fewer."
        )
    if wishes.layers is not None and wishes.layers > architecture.layers:
        raise InputError(
            f"A depth of {wishes.layers} is asked for; the model has {architecture.layers} layers."
        )
    if wishes.group_size is not None and wishes.group_size not in (sizes := architecture.group_sizes()):
        raise InputError(
            f"Group size {wishes.group_size} does not divide this model; the largest that does is {sizes[0]}."
        )


def _depths(architecture: Architecture, wishes: Wishes) -> list[int]:
    if wishes.layers is not None:
        return [wishes.layers]
    shallowest = max(1, round(architecture.layers * DEPTH_FRACTION_MIN))
    return list(range(architecture.layers, shallowest - 1, -1))


def _contexts(architecture: Architecture, wishes: Wishes) -> list[int]:
    """Returns the context asked for; where more is welcome, its doubles too, up to the model's maximum."""
    contexts = [wishes.context_tokens]
    while wishes.at_least and contexts[-1] < architecture.max_context_tokens:
        contexts.append(min(2 * contexts[-1], architecture.max_context_tokens))
    return contexts


def _concurrencies(wishes: Wishes) -> list[int]:
    counts = [wishes.concurrency]
    while wishes.at_least and 2 * counts[-1] <= CONCURRENCY_MAX:
        counts.append(2 * counts[-1])
    return counts


def _preference(plan: BuildPlan) -> tuple[float, int, int, int]:
    """Returns the key to sort by: the least is preferred."""
    m = plan.configuration
    return (plan.expected_divergence, -m.context_tokens, -m.concurrency, plan.memory.peak_bytes)


def _front(plans: Sequence[BuildPlan]) -> tuple[BuildPlan, ...]:
    """Returns the plans that no other beats; of equal ones the first. A plan can only be beaten by one before it."""
    front: list[BuildPlan] = []
    for plan in sorted(plans, key=lambda plan: (plan.expected_divergence, plan.memory.peak_bytes)):
        if not any(_as_good(other, plan) for other in front):
            front = [other for other in front if not _as_good(plan, other)] + [plan]
    return tuple(front)


def _as_good(one: BuildPlan, other: BuildPlan) -> bool:
    """Whether `one` is no worse than `other` in anything."""
    return (
        one.expected_divergence <= other.expected_divergence
        and one.memory.peak_bytes <= other.memory.peak_bytes
        and one.configuration.context_tokens >= other.configuration.context_tokens
        and one.configuration.concurrency >= other.configuration.concurrency
    )


def _nothing_fits(smallest: BuildPlan, budget_bytes: int) -> str:
    m = smallest.configuration
    return (
        f"No configuration meets the budget of {format_bytes(budget_bytes)}. The smallest needs "
        f"{format_bytes(smallest.bound.upper_bytes)}: {m.layers} of {smallest.layers_full} layers, "
        f"{m.embedding_bits}-bit embeddings, {m.context_tokens} tokens of context, at an expected loss of "
        f"{smallest.expected_divergence:.2f} nats per token before distillation. Raise the budget or shorten "
        "the context (`serving.context_tokens` in a recipe, --min-context of `plan`)."
    )


def plan_to_json(
    plan: BuildPlan, architecture: Architecture, model: str, device: dict[str, str]
) -> dict[str, Any]:
    """Returns the plan as `plan.json` holds it."""
    memory = plan.memory
    breakdown = {
        "linear": memory.linear_bytes,
        "embedding": memory.embedding_bytes,
        "norm": memory.norm_bytes,
        "kv_cache": memory.kv_cache_bytes,
        "activation": memory.activation_bytes,
        "engine": memory.engine_bytes,
    }
    return {
        "model": model,
        "device": device,
        "engine": plan.engine,
        **asdict(plan.configuration),
        "layers_full": plan.layers_full,
        "budget_bytes": plan.budget_bytes,
        "predicted_peak_bytes": memory.peak_bytes,
        "error_bytes": plan.error_bytes,
        "calibrated_on": plan.calibrated_on,
        "breakdown_bytes": breakdown,
        "bf16_bytes": architecture.with_layers(plan.configuration.layers).bf16_bytes,
        "bf16_bytes_full": architecture.bf16_bytes,
        "expected_divergence": round(plan.expected_divergence, 4),
    }
