"""The recipes and fleets that the documentation shows are read by what reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_builder.fleet.inventory import load_inventory
from edgewright_builder.recipe.adapter_recipe import load_any_recipe
from edgewright_builder.study.study_file import load_study
from tests.support.markdown import Block, blocks

SHOWN = [block for block in blocks("yaml") if block.page.startswith(("README", "docs"))]


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_a_file_that_is_shown_can_be_used(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(block.text, encoding="utf-8")
    if "devices:" in block.text:
        (tmp_path / "keys").mkdir()
        assert len(load_inventory(path).devices) == 3
    elif "factors:" in block.text:
        assert load_study(path).compare
    else:
        assert load_any_recipe(path).name


def test_recipes_and_a_fleet_are_shown() -> None:
    assert sum("devices:" in block.text for block in SHOWN) == 1
    assert sum("task:" in block.text for block in SHOWN) >= 4
