"""Widely used models whose facts ship with Edgewright, so that gated models can be checked without a network."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class BuiltinModel:
    """One row of the table."""

    name: str  # what people type: llama-3.2-3b
    title: str
    hub_id: str
    aliases: tuple[str, ...]  # other names of the same shape
    parameters: int  # as published; a test compares them with what `config` gives
    source: str
    config: Mapping[str, Any]  # the fields of config.json that sizes follow from

    @property
    def names(self) -> tuple[str, ...]:
        """All it is found by."""
        return (self.name, self.hub_id, *self.aliases)


@lru_cache(maxsize=1)
def builtin_models() -> tuple[BuiltinModel, ...]:
    """Returns every built-in model, family by family, smaller ones first."""
    files = sorted(resources.files(__package__).iterdir(), key=lambda file: file.name)
    rows = [
        BuiltinModel(**{**row, "aliases": tuple(row["aliases"])})
        for file in files
        if file.name.endswith(".json")
        for row in json.loads(file.read_text(encoding="utf-8"))
    ]
    return tuple(rows)


def find_builtin(name: str) -> BuiltinModel | None:
    """Returns the model of that name, hub id or alias, whatever the case."""
    wanted = name.casefold()
    return next(
        (model for model in builtin_models() if wanted in (each.casefold() for each in model.names)), None
    )


def nearest_names(name: str) -> list[str]:
    """Up to three names of the table that look like `name`, the likeliest first."""
    by_text = {each.casefold(): model.name for model in builtin_models() for each in model.names}
    by_text |= {each.split("/")[-1]: model for each, model in by_text.items()}
    wanted = name.casefold().split("/")[-1]
    near = difflib.get_close_matches(wanted, by_text, n=6, cutoff=0.6)
    return list(dict.fromkeys(by_text[each] for each in near))[:3]
