"""Holds an engine to its memory budget by the measure it was predicted in: the peak of its resident set.

A control group alone does not: it counts pages of files too, and the kernel takes those back before it kills anyone, so
an engine limps on at a limit well below its peak; and not every agent may make one. So the agent looks at the peak, and
the kernel's limit lies somewhat higher, for what grows faster than the agent looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgewright.sizes import format_bytes

WATCH_SECONDS = 1.0
KERNEL_SLACK = 1 / 8  # of the budget; at the budget itself the kernel would keep the peak just below it
KERNEL_SLACK_BYTES_MAX = 256 * 1024 * 1024


def kernel_limit_bytes(budget_bytes: int) -> int:
    """Returns the limit at which the kernel stops an engine of that budget."""
    return budget_bytes + min(round(KERNEL_SLACK * budget_bytes), KERNEL_SLACK_BYTES_MAX)


async def until_over(peak_bytes: Callable[[], int], budget_bytes: int) -> str:
    """Runs until the peak is over the budget; returns a sentence with both."""
    while (peak := peak_bytes()) <= budget_bytes:
        await asyncio.sleep(WATCH_SECONDS)
    return f"its memory peaked at {format_bytes(peak)}, its budget is {format_bytes(budget_bytes)}"
