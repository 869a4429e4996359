"""Why an engine's process ended: rules without I/O, and the one counter they need."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from edgewright_agent.engines.protocol import Death, DeathCause

# How an allocation fails: libstdc++, Python, ONNX Runtime, CUDA, and Tegra's own spellings.
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|MemoryError|out of memory|Failed to allocate memory|CUDA_ERROR_OUT_OF_MEMORY"
    r"|NvMapMemAlloc|CUDACachingAllocator",
    re.IGNORECASE,
)


def classify(
    returncode: int,
    *,
    asked: bool,
    killed_for_memory: bool,
    last_lines: Sequence[str],
    over_budget: str = "",
) -> Death:
    """The death of a process that ended with `returncode` (as subprocess gives it: −n for signal n).

    `asked`: we stopped it; `killed_for_memory`: the kernel's out-of-memory killer was at work in its life;
    `over_budget`: the agent killed it for its memory, with the figures.
    """
    ended_by = -returncode if returncode < 0 else None
    exit_code = returncode if returncode >= 0 else None
    if over_budget and ended_by == signal.SIGKILL:
        return Death(DeathCause.OVER_BUDGET, exit_code, ended_by, tuple(last_lines), over_budget)
    if asked:
        cause = DeathCause.STOPPED
    elif (killed_for_memory and ended_by == signal.SIGKILL) or (
        returncode != 0 and out_of_memory_line(last_lines) is not None
    ):
        cause = DeathCause.OUT_OF_MEMORY
    else:
        cause = DeathCause.EXITED if ended_by is None else DeathCause.KILLED
    return Death(cause, exit_code, ended_by, tuple(last_lines))


def out_of_memory_line(lines: Sequence[str]) -> str | None:
    """The last line that tells of an allocation that failed."""
    return next((line for line in reversed(lines) if _OUT_OF_MEMORY.search(line)), None)


def out_of_memory_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has killed for memory since boot; 0 if it does not say."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
