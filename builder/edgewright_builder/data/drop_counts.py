"""How many questions or rows each check dropped, and how many were kept."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.errors import InputError


def attrition_line(counts: Mapping[str, int]) -> str:
    """Returns the counts as one line: "generated 8, duplicate 2"."""
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)


def refuse_nothing(what: str, rows: int, counts: Mapping[str, int]) -> None:
    """Raises InputError with the counts where no row is left."""
    if rows == 0:
        detail = attrition_line(counts) or "the file is empty"
        raise InputError(f"{what}, expected at least 1 ({detail}). Lower the filters or change the source.")
