"""Sizes as people write them: 180MiB, 1.5 GiB, 4GB."""

from __future__ import annotations

import re
from decimal import Decimal

from edgewright.errors import InputError

_UNITS = {
    "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
SHOWN_CHARACTERS = 40
BYTES_MAX = 2**60  # 1048576 TiB; the wire's numbers end at eight times that
_BYTES = {unit.lower(): size_bytes for unit, size_bytes in _UNITS.items()}


def parse_bytes(text: str) -> int:
    """Returns the bytes of `180MiB`, 188743680.

    Raises InputError for a missing unit, for less than a byte, and for more than any disk has.
    """
    size_bytes = parse_bytes_or_zero(text)
    if size_bytes == 0:
        raise InputError(f"{text!r} is less than a byte; give a size above 0, for instance 180MiB.")
    return size_bytes


def parse_bytes_or_zero(text: str) -> int:
    """Returns the bytes of a size where `0B` has a meaning, too. Raises InputError as `parse_bytes`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    if match is None or match[2] not in _BYTES:
        units = ", ".join(_UNITS)
        raise InputError(
            f"{text!r} is not a size; write a number and a unit of {units}, for instance 180MiB."
        )
    size_bytes = int(Decimal(match[1]) * _BYTES[match[2]])
    if size_bytes > BYTES_MAX:
        raise InputError(f"{text[:SHOWN_CHARACTERS]!r} is more than any disk has; give at most 1048576TiB.")
    return size_bytes


def format_bytes(size_bytes: int) -> str:
    """Returns 188743680 as `180.0 MiB`; with two decimals from a GiB on."""
    for unit, factor, decimals in (("GiB", 2**30, 2), ("MiB", 2**20, 1), ("KiB", 2**10, 1)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:.{decimals}f} {unit}"
    return f"{size_bytes} B"
