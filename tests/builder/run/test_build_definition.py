"""What follows from a recipe, a board and a budget before anything is made: the group sizes to choose among."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from edgewright.errors import RefusedError
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import Run
from edgewright_profiles import load_profile

MIB = 2**20
CONFIG = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}  # fmt: skip


def a_build(folder: Path, budget_bytes: int, **changes: Any) -> Build:
    """A build of a model of which there is a configuration and no weight."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    values = {
        "name": "x", "task": "arc_easy", "student": {"model": str(model), "depth": "full"},
        "teachers": {"knowledge": {"model": str(model)}}, "data": {"file": "pairs.jsonl"},
        "serving": {"context_tokens": 512}, "quantize": {"embedding_bits": 8},
    } | changes  # fmt: skip
    run = Run(folder / "run", Reporter(Console(quiet=True)))
    key = Ed25519PrivateKey.generate()
    return Build(Recipe.model_validate(values), load_profile("this-host"), budget_bytes, run, key)


def group_sizes(build: Build) -> list[int]:
    return [plan.configuration.group_size for plan in build.plans]


def upper_bytes(folder: Path, group_size: int) -> int:
    fixed = a_build(folder, 2**40, quantize={"group_size": group_size, "embedding_bits": 8})
    return fixed.plan.bound.upper_bytes


def test_without_a_choice_the_group_size_is_the_plan_s(tmp_path: Path) -> None:
    build = a_build(tmp_path, 2**30)
    assert build.plans == (build.plan,)
    assert group_sizes(a_build(tmp_path, 2**30, quantize={"group_size": 32})) == [32]


def test_a_group_size_over_budget_is_never_tried(tmp_path: Path) -> None:
    space = {"space": {"group_size": [32, 64]}}
    budget_bytes = upper_bytes(tmp_path, 64)
    assert budget_bytes < upper_bytes(tmp_path, 32)
    assert group_sizes(a_build(tmp_path, budget_bytes, search=space, quantize={"embedding_bits": 8})) == [64]
    only_small = a_build(
        tmp_path, budget_bytes, search={"space": {"group_size": [32]}}, quantize={"embedding_bits": 8}
    )
    with pytest.raises(RefusedError, match="within the budget"):
        assert only_small.plans


def test_the_plan_of_the_size_that_the_search_chose_is_the_one_that_was_held_against_the_budget(
    tmp_path: Path,
) -> None:
    build = a_build(tmp_path, 2**30, search={"space": {"group_size": [64, 32]}})
    assert build.plan_with(32) is build.plans[1]
    assert build.plan_with(32).bound.upper_bytes == upper_bytes(tmp_path, 32)
