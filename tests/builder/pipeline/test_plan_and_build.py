"""What `plan` prints to be built is what `build` would make of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from edgewright_builder.fit.display.terminal import settings
from edgewright_builder.fit.memory import load_calibration
from edgewright_builder.fit.model_facts import find_model
from edgewright_builder.fit.plan import Wishes, make_plan, search_plans
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.build_definition import wishes_of

ENGINE = "onnxruntime-genai"
CALIBRATION = load_calibration(ENGINE)
MIB = 2**20
MINIMAL: dict[str, Any] = {
    "name": "x", "task": "arc_easy", "student": {"model": "m"}, "data": {"file": "pairs.jsonl"},
    "teachers": {"knowledge": {"model": "m"}},
}  # fmt: skip


def recipe_with(printed: str) -> Recipe:
    """A recipe that holds the `section.key: value` pairs of a printed line and nothing else of its own."""
    document = {key: dict(value) if isinstance(value, dict) else value for key, value in MINIMAL.items()}
    pairs = re.findall(r"(\w+)\.(\w+): ([\w-]+)", printed)
    assert len(pairs) >= 6
    for section, key, value in pairs:
        document.setdefault(section, {})[key] = yaml.safe_load(value)
    return Recipe.model_validate(document)


@pytest.mark.parametrize(
    ("model", "budget_mib", "context"),
    [
        ("smollm2-135m", 250, 512), ("smollm2-360m", 900, 1024), ("llama-3.2-1b", 1000, 512),
        ("llama-3.2-3b", 2600, 2048), ("smollm2-1.7b", 1700, 2048),
    ],
)  # fmt: skip
def test_the_settings_of_every_plan_on_the_front_build_that_plan(
    model: str, budget_mib: int, context: int
) -> None:
    architecture = find_model(model).architecture
    search = search_plans(architecture, Wishes(context, at_least=True), budget_mib * MIB, [CALIBRATION])
    assert len(search.front) > 3
    for plan in search.front:
        wishes = wishes_of(recipe_with(settings(plan)), architecture)
        assert make_plan(architecture, wishes, budget_mib * MIB, CALIBRATION) == plan


@pytest.mark.parametrize(
    ("model", "budget_mib", "differing"),
    [
        ("smollm2-360m", 600, {"layers", "embedding_bits", "context_tokens", "concurrency"}),
        ("llama-3.2-1b", 1200, {"layers", "embedding_bits", "context_tokens", "concurrency"}),
    ],
)
def test_the_front_differs_in_every_dimension_the_engine_has(
    model: str, budget_mib: int, differing: set[str]
) -> None:
    search = search_plans(
        find_model(model).architecture, Wishes(256, at_least=True), budget_mib * MIB, [CALIBRATION]
    )
    for name in differing:
        assert len({getattr(plan.configuration, name) for plan in search.front}) > 1, name
