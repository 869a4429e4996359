"""Formats the report's numbers, always with their unit; `edgewright.sizes.format_bytes` writes sizes."""

from __future__ import annotations

import math

BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def byte_unit(largest_bytes: float) -> tuple[str, int]:
    """Returns the unit in which `largest_bytes` has one to four digits, and its size: ("MiB", 1048576)."""
    power = 0
    while largest_bytes >= 1024 and power < len(BYTE_UNITS) - 1:
        largest_bytes /= 1024
        power += 1
    return BYTE_UNITS[power], 1024**power


def show_seconds(seconds: float) -> str:
    """`840 µs`, `12.3 ms`, `41.0 s`, `3 min 5 s`, `2 h 4 min`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds == 0:
        return "0 s"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def show_percent(share: float, digits: int = 1) -> str:
    """`47.2 %` from 0.472."""
    return f"{share * 100:.{digits}f} %"


def show_accuracy(accuracy: float, standard_error: float) -> str:
    """`47.2 ± 1.1 %` from 0.472 and 0.011."""
    return f"{accuracy * 100:.1f} ± {standard_error * 100:.1f} %"


def show_points(difference: float, standard_error: float) -> str:
    """`+5.2 ± 1.1 points` from 0.052 and 0.011."""
    return f"{difference * 100:+.1f} ± {standard_error * 100:.1f} points".replace("-", "−")


def show_signed(value: float) -> str:
    """`+5`, `−1.5` with a true minus, `0`."""
    return f"{value:+.4g}".replace("-", "−") if value else "0"


def show_number(value: object) -> str:
    """Returns a parameter as people write it: 4 significant digits, no trailing zeros."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}"


def show_tick(value: float) -> str:
    """Returns a value at an axis."""
    return f"{value:,.6g}".replace(",", " ") if abs(value) < 1e6 else f"{value:.2g}"
