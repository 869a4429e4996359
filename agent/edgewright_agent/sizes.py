"""Sizes as people write them: 180MiB, 1.5 GiB, 4GB, 123456."""

from __future__ import annotations

import re
from decimal import Decimal

from edgewright_agent.errors import InputError

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_bytes(text: str) -> int:
    """Bytes in `text`, a number with an optional unit (KiB, MiB, GiB, kB, MB, GB). Raises InputError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise InputError(f"{text!r} is not a size; write a number and a unit, for instance 180MiB.")
    size_bytes = int(Decimal(match[1]) * _UNITS[match[2]])
    if size_bytes <= 0:
        raise InputError(f"{text!r} is not a size above 0.")
    return size_bytes
