from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from edgewright.errors import InputError
from edgewright.file_model import FileModel, checked, read_file


class Oven(FileModel):
    name: str = "oven"
    trays: int = 1
    heat: float = 1.0
    depth: Literal["auto"] | int = "auto"
    limits: tuple[float, ...] = ()
    by_tray: dict[str, float] | None = None
    fan: bool = False


class Kitchen(FileModel):
    oven: Oven = Oven()
    spare: Oven | None = None


@pytest.mark.parametrize("key", ["trays", "heat", "depth"])
@pytest.mark.parametrize("word", ["true", "yes", "on", "off", "[yes]"])
@pytest.mark.parametrize("section", ["oven", "spare"])
def test_a_flag_is_no_number(tmp_path: Path, section: str, key: str, word: str) -> None:
    path = tmp_path / "kitchen.yaml"
    path.write_text(f"{section}: {{{key}: {word}}}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"`{section}\.{key}` is .*: expected a number; YAML reads"):
        read_file(Kitchen, path, "kitchen")


@pytest.mark.parametrize("values", [{"limits": [1, True]}, {"limits": [[True]]}, {"by_tray": {"a": True}}])
def test_a_flag_is_no_number_in_a_list_or_a_map_either(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected a number; YAML reads"):
        checked(Kitchen, {"oven": values}, "kitchen.yaml")


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, ".inf", "nan", "1e999"])
@pytest.mark.parametrize("key", ["trays", "heat"])
def test_a_number_is_finite(key: str, number: float | str) -> None:
    with pytest.raises(InputError, match=rf"`oven\.{key}` is .*: expected a"):
        checked(Kitchen, {"oven": {key: number}}, "kitchen.yaml")


def test_a_list_holds_finite_numbers() -> None:
    with pytest.raises(InputError, match=r"`oven\.limits\.1` is inf: expected a finite number"):
        checked(Kitchen, {"oven": {"limits": [1, math.inf]}}, "kitchen.yaml")


def test_flags_and_numbers_pass_where_they_belong() -> None:
    values = yaml.safe_load("{fan: yes, trays: 2, heat: 2e-3, depth: 3, limits: [1, 2.5], by_tray: {a: 1}}")
    oven = checked(Kitchen, {"oven": values}, "kitchen.yaml").oven
    assert (oven.fan, oven.trays, oven.heat, oven.depth) == (True, 2, 0.002, 3)
    assert (oven.limits, oven.by_tray) == ((1.0, 2.5), {"a": 1.0})
