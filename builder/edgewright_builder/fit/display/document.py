"""Answers of `check` and `plan` as JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgewright_builder.fit.check import Check
from edgewright_builder.fit.matrix import Cell
from edgewright_builder.fit.memory import PeakMemory
from edgewright_builder.fit.plan import BuildPlan, PlanSearch
from edgewright_builder.fit.proof.record import Proof


def check_document(answer: Check) -> dict[str, Any]:
    """Everything `check` prints; sizes in bytes, times in seconds."""
    question = answer.question
    return {
        "model": question.model.name,
        "model_source": question.model.source,
        "parameters": question.model.architecture.parameters,
        "device": question.profile.id,
        "verdict": answer.verdict.name.lower(),
        "why_not_served": answer.why_not_served,
        "spare_bytes": answer.spare_bytes,
        "plan": plan_document(answer.plan),
        "largest_context_tokens": answer.largest_context_tokens,
        "largest_concurrency": answer.largest_concurrency,
        "changes": [
            {
                "title": change.title,
                "saves_bytes": change.saves_bytes,
                "cost": change.cost,
                "expected_accuracy_loss": round(change.expected_accuracy_loss, 4),
                "fits": change.fits,
                "plan": plan_document(change.plan),
            }
            for change in answer.changes
        ],
        "speed": asdict(answer.speed),
        "caveats": list(answer.caveats),
        "proof": None if answer.proof is None else proof_document(answer.proof),
    }


def proof_document(proof: Proof) -> dict[str, Any]:
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


def plan_document(plan: BuildPlan) -> dict[str, Any]:
    """Returns one plan and what is predicted for it."""
    return {
        "engine": plan.engine,
        **asdict(plan.configuration),
        "layers_full": plan.layers_full,
        "budget_bytes": plan.budget_bytes,
        "predicted_peak_bytes": plan.memory.peak_bytes,
        "error_bytes": plan.error_bytes,
        "fits": plan.bound.fits,
        "expected_accuracy_loss": round(plan.expected_accuracy_loss, 4),
        "calibrated_on": plan.calibrated_on,
        "breakdown_bytes": _breakdown(plan.memory),
    }


def search_document(search: PlanSearch, model: str, device: str) -> dict[str, Any]:
    """Returns what `plan` chose, and the front it chose from."""
    return {
        "model": model,
        "device": device,
        "candidates": search.candidates,
        "fitting": search.fitting,
        "chosen": plan_document(search.chosen),
        "front": [plan_document(plan) for plan in search.front],
    }


def matrix_document(rows: Sequence[Sequence[Cell]]) -> dict[str, Any]:
    """Returns one entry a model and board."""
    return {"cells": [{**asdict(cell), "text": cell.text} for row in rows for cell in row]}


def _breakdown(memory: PeakMemory) -> dict[str, Any]:
    return {
        "tensors": [asdict(tensor) for tensor in memory.tensors],
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
