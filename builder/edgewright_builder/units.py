"""Bytes as people write them."""

from __future__ import annotations

import re

from edgewright_agent.errors import InputError

_FACTORS = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30,
}  # fmt: skip


def parse_bytes(text: str) -> int:
    """`180MiB` → 188743680. Raises InputError for a missing unit or a number that is not positive."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].upper() not in _FACTORS:
        raise InputError(f"{text!r} is not a size: write a positive number with a unit, like 180MiB or 2GB.")
    size_bytes = round(float(match[1]) * _FACTORS[match[2].upper()])
    if size_bytes <= 0:
        raise InputError(f"{text!r} is not a positive size.")
    return size_bytes


def format_bytes(size_bytes: int) -> str:
    """188743680 → `180.0 MiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"
