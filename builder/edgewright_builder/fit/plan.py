"""The plan: the best configuration whose predicted peak meets the budget.

"Best" is the least expected loss of accuracy. What a missing layer and a 4-bit embedding cost was measured on the
offline default model, before distillation; distillation recovers part of it, so these figures only put candidates in
order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import InputError
from edgewright_agent.sizes import format_bytes
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Calibration, Configuration, Memory, predict_memory

# SmolLM2-135M on ARC-Easy (acc_norm): 0.463 whole, 0.428 without 5 of 30 layers (400 rows), 0.367 without 9 (300 rows).
ACCURACY_LOSS_PER_DEPTH = 0.3
# The same model's 25-layer child after GPTQ: 0.430 with an 8-bit embedding, 0.410 ± 0.012 (paired) with a 4-bit one.
ACCURACY_LOSS_EMBEDDING_4_BITS = 0.02
DEPTH_FRACTION_MIN = 0.5  # below half its layers a model is another model


@dataclass(frozen=True)
class Wishes:
    """What the recipe fixes; None leaves it to the plan."""

    context_tokens: int
    concurrency: int
    layers: int | None = None
    group_size: int | None = None
    embedding_bits: int | None = None


@dataclass(frozen=True)
class Plan:
    """What `fit` chose, and what it predicts for it."""

    configuration: Configuration
    memory: Memory
    budget_bytes: int
    error_bytes: int  # half-width of the prediction's interval
    calibrated_on: str
    layers_full: int
    expected_accuracy_loss: float

    @property
    def peak_bound_bytes(self) -> int:
        """The predicted peak and its error: what must meet the budget."""
        return self.memory.peak_bytes + self.error_bytes

    def fits(self) -> bool:
        """Whether even the upper end of the prediction meets the budget."""
        return self.peak_bound_bytes <= self.budget_bytes


def make_plan(
    architecture: Architecture, wishes: Wishes, budget_bytes: int, calibration: Calibration
) -> Plan:
    """The plan with the least expected loss that fits.

    Raises InputError naming the smallest budget that would do and what it costs, where nothing fits.
    """
    _check(architecture, wishes)
    plans = [
        _plan(architecture, wishes, layers, embedding_bits, budget_bytes, calibration)
        for layers in _depths(architecture, wishes)
        for embedding_bits in ((wishes.embedding_bits,) if wishes.embedding_bits else (8, 4))
    ]
    fitting = [plan for plan in plans if plan.fits()]
    if not fitting:
        smallest = min(plans, key=lambda plan: plan.memory.peak_bytes)
        raise InputError(_nothing_fits(smallest, budget_bytes), Reason.REASON_MEMORY_BUDGET)
    return min(fitting, key=lambda plan: (plan.expected_accuracy_loss, plan.memory.peak_bytes))


def with_group_size(
    plan: Plan, architecture: Architecture, group_size: int, calibration: Calibration
) -> Plan:
    """The same plan at another group size, which the search may choose."""
    configuration = replace(plan.configuration, group_size=group_size)
    memory = predict_memory(architecture, configuration, calibration)
    error_bytes = round(calibration.error_fraction * memory.peak_bytes)
    return replace(plan, configuration=configuration, memory=memory, error_bytes=error_bytes)


def _check(architecture: Architecture, wishes: Wishes) -> None:
    if wishes.context_tokens > architecture.max_context_tokens:
        raise InputError(
            f"A context of {wishes.context_tokens} tokens is asked for; "
            f"the model's maximum is {architecture.max_context_tokens}."
        )
    if wishes.layers is not None and wishes.layers > architecture.layers:
        raise InputError(
            f"A depth of {wishes.layers} is asked for; the model has {architecture.layers} layers."
        )
    largest = architecture.largest_group_size()
    if wishes.group_size is not None and wishes.group_size > largest:
        raise InputError(
            f"Group size {wishes.group_size} does not divide this model; the largest that does is {largest}."
        )


def _depths(architecture: Architecture, wishes: Wishes) -> list[int]:
    if wishes.layers is not None:
        return [wishes.layers]
    shallowest = max(1, round(architecture.layers * DEPTH_FRACTION_MIN))
    return list(range(architecture.layers, shallowest - 1, -1))


def _plan(
    architecture: Architecture,
    wishes: Wishes,
    layers: int,
    embedding_bits: int,
    budget_bytes: int,
    calibration: Calibration,
) -> Plan:
    configuration = Configuration(
        layers=layers,
        weight_bits=4,
        group_size=wishes.group_size or architecture.largest_group_size(),
        embedding_bits=embedding_bits,
        context_tokens=wishes.context_tokens,
        concurrency=wishes.concurrency,
    )
    memory = predict_memory(architecture, configuration, calibration)
    dropped_fraction = 1 - layers / architecture.layers
    return Plan(
        configuration=configuration,
        memory=memory,
        budget_bytes=budget_bytes,
        error_bytes=round(calibration.error_fraction * memory.peak_bytes),
        calibrated_on=str(calibration),
        layers_full=architecture.layers,
        expected_accuracy_loss=ACCURACY_LOSS_PER_DEPTH * dropped_fraction
        + (ACCURACY_LOSS_EMBEDDING_4_BITS if embedding_bits == 4 else 0.0),
    )


def _nothing_fits(smallest: Plan, budget_bytes: int) -> str:
    m = smallest.configuration
    return (
        f"No configuration meets the budget of {format_bytes(budget_bytes)}. The smallest needs "
        f"{format_bytes(smallest.peak_bound_bytes)}: {m.layers} of {smallest.layers_full} layers, "
        f"{m.embedding_bits}-bit embeddings, {m.context_tokens} tokens of context, at an expected accuracy loss of "
        f"{100 * smallest.expected_accuracy_loss:.0f} points before distillation. Raise the budget or shorten "
        "`serving.context_tokens`."
    )


def plan_to_json(
    plan: Plan, architecture: Architecture, model: str, device: dict[str, str]
) -> dict[str, Any]:
    """The plan as `plan.json` holds it."""
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
        **asdict(plan.configuration),
        "kv_bits": 32,
        "layers_full": plan.layers_full,
        "budget_bytes": plan.budget_bytes,
        "predicted_peak_bytes": memory.peak_bytes,
        "error_bytes": plan.error_bytes,
        "calibrated_on": plan.calibrated_on,
        "breakdown_bytes": breakdown,
        "bf16_bytes": architecture.with_layers(plan.configuration.layers).bf16_bytes,
        "bf16_bytes_full": architecture.bf16_bytes,
        "expected_accuracy_loss": round(plan.expected_accuracy_loss, 4),
    }
