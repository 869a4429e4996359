"""Sizes as people read them. A twin of `edgewright.sizes`, with every digit, as limits are compared to the byte."""

from __future__ import annotations


def in_words(size_bytes: int) -> str:
    """Returns 1500000 as `1,500,000 bytes (1.4 MiB)`, and 900 as `900 bytes`."""
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{size_bytes:,} bytes ({size_bytes / factor:.1f} {unit})"
    return f"{size_bytes} bytes"
