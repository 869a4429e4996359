"""Answers of `check` and `plan` as JSON documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from edgewright_builder.fit.check import Check
from edgewright_builder.fit.matrix import Cell
from edgewright_builder.fit.memory import PeakMemory, TensorClass
from edgewright_builder.fit.plan import BuildPlan, PlanSearch
from edgewright_builder.fit.proof.record import Proof
from edgewright_builder.fit.speed import Speed


class BreakdownDocument(TypedDict):
    """The parts of a predicted peak, in bytes."""

    tensors: tuple[TensorClass, ...]
    tied: bool
    kv_cache: int
    layer_activations: int
    logits: int
    lookup: int
    in_file: int  # negative: of the weights, what stays in the file
    runtime: int
    second_copies: int
    steady: int
    load_peak: int


class PlanDocument(TypedDict):
    """A configuration and what is predicted for it."""

    engine: str
    layers: int
    weight_bits: int
    group_size: int
    embedding_bits: int
    context_tokens: int
    concurrency: int
    kv_bits: int
    layers_full: int
    budget_bytes: int
    predicted_peak_bytes: int
    error_bytes: int
    fits: bool
    expected_divergence: float  # nats per token
    calibrated_on: str
    breakdown_bytes: BreakdownDocument


class ChangeDocument(TypedDict):
    """A change that would make the model fit."""

    title: str
    saves_bytes: int
    cost: str
    expected_divergence: float  # nats per token
    fits: bool
    plan: PlanDocument


class ProofDocument(TypedDict):
    """How near the engine's logits are to those of transformers."""

    equal: bool
    max_logit_difference: float
    logit_deviation: float
    argmax_agreement: float
    tokens: int
    seconds: float
    versions: Mapping[str, str]


class CheckDocument(TypedDict):
    """Whether a model fits a device, and what the answer rests on."""

    model: str
    model_source: str
    parameters: int
    device: str
    verdict: str  # fits, uncertain, does_not_fit, not_served
    why_not_served: str | None
    recommendation: str | None  # why this engine, where none was asked for
    spare_bytes: int
    plan: PlanDocument
    largest_context_tokens: int
    largest_concurrency: int
    changes: list[ChangeDocument]
    speed: Speed
    caveats: list[str]
    proof: ProofDocument | None


class SearchDocument(TypedDict):
    """The best configuration that fits, and those it was chosen from."""

    model: str
    device: str
    candidates: int
    fitting: int
    chosen: PlanDocument
    front: list[PlanDocument]


class CellDocument(TypedDict):
    """One model on one board."""

    model: str
    board: str
    engine: str
    served: bool
    context_tokens: int
    embedding_bits: int
    layers: int
    layers_full: int
    text: str


class MatrixDocument(TypedDict):
    """Every built-in model on every built-in board."""

    cells: list[CellDocument]


def check_document(answer: Check, recommendation: str | None) -> CheckDocument:
    """Everything `check` prints; sizes in bytes, times in seconds."""
    question = answer.question
    return {
        "model": question.model.name,
        "model_source": question.model.source,
        "parameters": question.model.architecture.parameters,
        "device": question.profile.id,
        "verdict": answer.verdict.name.lower(),
        "why_not_served": answer.why_not_served,
        "recommendation": recommendation,
        "spare_bytes": answer.spare_bytes,
        "plan": plan_document(answer.plan),
        "largest_context_tokens": answer.largest_context_tokens,
        "largest_concurrency": answer.largest_concurrency,
        "changes": [
            {
                "title": change.title,
                "saves_bytes": change.saves_bytes,
                "cost": change.cost,
                "expected_divergence": round(change.expected_divergence, 4),
                "fits": change.fits,
                "plan": plan_document(change.plan),
            }
            for change in answer.changes
        ],
        "speed": answer.speed,
        "caveats": list(answer.caveats),
        "proof": None if answer.proof is None else proof_document(answer.proof),
    }


def proof_document(proof: Proof) -> ProofDocument:
    """Returns how near the engine's logits are to those of transformers, for a tiny model of the same configuration."""
    return {
        "equal": proof.equal,
        "max_logit_difference": proof.max_logit_difference,
        "logit_deviation": proof.logit_deviation,
        "argmax_agreement": proof.argmax_agreement,
        "tokens": proof.tokens,
        "seconds": proof.seconds,
        "versions": dict(proof.versions),
    }


def plan_document(plan: BuildPlan) -> PlanDocument:
    """Returns one plan and what is predicted for it."""
    wanted = plan.configuration
    return {
        "engine": plan.engine,
        "layers": wanted.layers,
        "weight_bits": wanted.weight_bits,
        "group_size": wanted.group_size,
        "embedding_bits": wanted.embedding_bits,
        "context_tokens": wanted.context_tokens,
        "concurrency": wanted.concurrency,
        "kv_bits": wanted.kv_bits,
        "layers_full": plan.layers_full,
        "budget_bytes": plan.budget_bytes,
        "predicted_peak_bytes": plan.memory.peak_bytes,
        "error_bytes": plan.error_bytes,
        "fits": plan.bound.fits,
        "expected_divergence": round(plan.expected_divergence, 4),
        "calibrated_on": plan.calibrated_on,
        "breakdown_bytes": _breakdown(plan.memory),
    }


def search_document(search: PlanSearch, model: str, device: str) -> SearchDocument:
    """Returns what `plan` chose, and the front it chose from."""
    return {
        "model": model,
        "device": device,
        "candidates": search.candidates,
        "fitting": search.fitting,
        "chosen": plan_document(search.chosen),
        "front": [plan_document(plan) for plan in search.front],
    }


def matrix_document(rows: Sequence[Sequence[Cell]]) -> MatrixDocument:
    """Returns one entry a model and board."""
    return {"cells": [_cell(cell) for row in rows for cell in row]}


def _cell(cell: Cell) -> CellDocument:
    return {
        "model": cell.model,
        "board": cell.board,
        "engine": cell.engine,
        "served": cell.served,
        "context_tokens": cell.context_tokens,
        "embedding_bits": cell.embedding_bits,
        "layers": cell.layers,
        "layers_full": cell.layers_full,
        "text": cell.text,
    }


def _breakdown(memory: PeakMemory) -> BreakdownDocument:
    return {
        "tensors": memory.tensors,
        "tied": memory.tied,
        "kv_cache": memory.kv_cache_bytes,
        "layer_activations": memory.layer_activation_bytes,
        "logits": memory.logits_bytes,
        "lookup": memory.lookup_bytes,
        "in_file": -memory.mapped_bytes,
        "runtime": memory.runtime_bytes,
        "second_copies": memory.second_copies_bytes,
        "steady": memory.steady_bytes,
        "load_peak": memory.load_peak_bytes,
    }
