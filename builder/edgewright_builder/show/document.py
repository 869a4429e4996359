"""Results as JSON documents, each with the name of its schema."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def document(value: Any) -> Any:
    """Returns what JSON can hold of a result: dataclasses as objects, tuples as lists, NaN and infinity as null."""
    if (own := getattr(value, "_document", None)) is not None and not isinstance(value, type):
        return document(own())
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: document(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): document(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [document(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
