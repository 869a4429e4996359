"""The fields of an artifact's manifest, and the files that an export puts into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewright.manifest import Manifest
from edgewright_builder.artifact.artifact import describe_file
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.memory import Configuration
from edgewright_builder.fit.plan import BuildPlan
from edgewright_builder.fit.speed import Speed
from edgewright_builder.local_engine.engine import engine_version
from edgewright_builder.recipe.model_recipe import Recipe, ServingSettings


def artifact_files(export: Path) -> dict[str, Path]:
    """Path in the artifact → file of the export."""
    folders = (export / "engine", export / "tokenizer")
    return {str(file.relative_to(export)): file for folder in folders for file in sorted(folder.iterdir())}


def manifest_fields(
    recipe: Recipe, plan: BuildPlan, speed: Speed, architecture: Architecture, device_profile: str,
    lineage: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Returns the fields of `Manifest` but `files`, `golden` and `accuracy`."""
    m = plan.configuration
    return {
        "name": recipe.name,
        "version": recipe.version,
        "release_counter": recipe.release_counter,
        "device_profiles": [device_profile],
        "engine": {
            "kind": recipe.serving.engine,
            "version": engine_version(recipe.serving.engine),
        },
        "model": _model(m, architecture.with_layers(m.layers)),
        "limits": _limits(m, recipe.serving),
        "memory": _memory(plan),
        "performance": _performance(speed) if speed.measurements else None,
        "adapter_slots": None if recipe.serving.adapters is None else recipe.serving.adapters.model_dump(),
        "lineage": {**lineage, "architecture": _facts(architecture), "configuration": asdict(m)},
    }


def _model(m: Configuration, model: Architecture) -> dict[str, Any]:
    return {
        "architecture": model.model_type,
        "parameters": model.parameters,
        "layers": m.layers,
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        "tied_embeddings": model.tied_embeddings,
        "weight_bits": m.weight_bits,
        "embedding_bits": m.embedding_bits,
        "group_size": m.group_size,
    }


def _limits(m: Configuration, serving: ServingSettings) -> dict[str, Any]:
    return {
        "context_tokens": m.context_tokens,
        "concurrency": m.concurrency,
        "ttft_seconds_max": serving.ttft_seconds_max,
        "tpot_seconds_max": serving.tpot_seconds_max,
    }


def _memory(plan: BuildPlan) -> dict[str, Any]:
    return {
        "budget_bytes": plan.budget_bytes,
        "predicted_peak_bytes": plan.memory.peak_bytes,
        "error_bytes": plan.error_bytes,
        "calibrated_on": plan.calibrated_on,
    }


def _facts(architecture: Architecture) -> dict[str, Any]:
    """Returns the architecture's facts. A limit that does not hold is left out, as it was before there was one."""
    facts = asdict(architecture)
    if not facts["context_limited_by"]:
        del facts["context_limited_by"]
    return facts


def _performance(speed: Speed) -> dict[str, Any]:
    """Returns the slow and costly end of what was predicted from measurements; published runs lie too far apart for
    it.
    """
    return {
        "tokens_per_second": 1 / speed.tpot_seconds_max,
        "joules_per_token": speed.joules_per_token_max,
        "predicted_by": speed.rests_on,
    }


def draft_manifest(export: Path, fields: Mapping[str, Any]) -> Manifest:
    """Returns the manifest of an export that is not packaged yet, to start an engine on it."""
    files = [describe_file(source, path) for path, source in artifact_files(export).items()]
    return Manifest.model_validate({**fields, "files": files})
