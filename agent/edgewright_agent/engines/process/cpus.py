"""Which processors an engine computes on."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

SYSFS = Path("/sys/devices/system/cpu")


def default_threads() -> int:
    """Returns one thread per physical core that this process may run on."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def choose_cpus(count: int, sysfs: Path = SYSFS) -> tuple[int, ...]:
    """Returns at most that many processors this process may run on; no two of one core before every core has one."""
    taken: set[str] = set()
    firsts: list[int] = []
    seconds: list[int] = []
    for cpu in sorted(os.sched_getaffinity(0)):
        core = _siblings(sysfs / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        (seconds if core in taken else firsts).append(cpu)
        taken.add(core)
    return tuple([*firsts, *seconds][:count])


def _siblings(file: Path) -> str:
    """Returns the siblings as the kernel names them; empty where it does not say."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
