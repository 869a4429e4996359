"""How long to wait before asking again."""

from __future__ import annotations

import random
from collections.abc import Iterator


def full_jitter(attempts: int, *, base_seconds: float, cap_seconds: float) -> Iterator[float]:
    """`attempts` delays, each uniform in [0, min(cap, base · 2^i)]: many clients don't return at once.

    "Full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    for attempt in range(attempts):
        yield random.uniform(0, min(cap_seconds, base_seconds * 2.0**attempt))  # noqa: S311
