"""The paths in a recipe: as seen from its folder, and as an artifact carries them."""

from __future__ import annotations

from pathlib import Path

from edgewright.folders import expanded


def absolute(path: Path | None, folder: Path) -> Path | None:
    """Returns a recipe's path as seen from `folder`, in which the recipe lies."""
    return None if path is None else folder / expanded(path)


def model_name(source: str) -> str:
    """Returns a model's source without this machine's paths: a hub id or a wheel as it is, of a path only the name."""
    path = expanded(source)
    return path.name if path.is_absolute() or source.startswith(".") or path.exists() else source
