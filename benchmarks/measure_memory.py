"""Memory of a real engine over the life of one release: loaded, with its whole context in use, at rest again."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.engines.cgroup import cgroup_of
from edgewright_agent.manifest import Manifest
from edgewright_builder.local_engine import LocalEngine, local_engine

LARGE_BYTES = 2**40


@dataclass(frozen=True)
class MemoryRun:
    """What was read, in bytes."""

    loaded_bytes: int  # PSS once it answers
    peak_bytes: int  # RSS high-water mark from then on, the whole context in use
    rest_bytes: int  # PSS after that request
    cgroup_peak_bytes: int | None  # of the whole life, page cache of the file of weights included


def measure_memory(tree: Path, manifest: Manifest, context: int, limit_bytes: int = LARGE_BYTES) -> MemoryRun:
    """The engine's memory over a short request, scoring, and one that fills the context."""
    with local_engine(tree, manifest, memory_limit_bytes=limit_bytes) as engine:
        loaded = engine.engine.memory_bytes().now_bytes
        use_context(engine, context)
        memory = engine.engine.memory_bytes()
        return MemoryRun(loaded, memory.peak_bytes, memory.now_bytes, _cgroup_peak(engine))


def use_context(engine: LocalEngine, context: int) -> None:
    """Requests of several kinds and lengths, the last one as long as can be."""
    engine.greedy("the " * 40, 16)
    engine.score([("the " * 60, ["the " * 8, "a " * 12])])
    engine.greedy("the " * (context - 80), 64)


def bare_interpreter_bytes() -> int:
    """RSS of a Python that has imported nothing."""
    code = "print(next(line for line in open('/proc/self/status') if line.startswith('VmRSS:')).split()[1])"
    return int(subprocess.check_output([sys.executable, "-c", code])) * 1024


def _cgroup_peak(engine: LocalEngine) -> int | None:
    pid = engine.engine.pid
    group = cgroup_of(pid) if pid is not None else None
    return group.peak_bytes() if group is not None and "edgewright-engine" in group.folder.name else None
