"""Memory of a real engine over the life of one release: loaded, with its whole context in use, at rest again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgewright.manifest import Manifest
from edgewright_agent.engines.process.cgroup import cgroup_of
from edgewright_builder.local_engine.engine import LocalEngine, local_engine

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
        loaded = engine.engine.memory().now_bytes
        use_context(engine, words(tree / "tokenizer"), context, manifest.limits.concurrency)
        memory = engine.engine.memory()
        return MemoryRun(loaded, memory.peak_bytes, memory.now_bytes, _cgroup_peak(engine))


def use_context(engine: LocalEngine, vocabulary: Sequence[str], context: int, concurrency: int = 1) -> None:
    """Requests of several kinds and lengths, at the end all at once and one alone, as long as can be.

    No word comes twice in a slice, and no two prompts begin alike.
    """
    text = [vocabulary[index * 7919 % len(vocabulary)] for index in range(context + concurrency)]
    engine.greedy(" ".join(text[:40]), 16)
    engine.score([(" ".join(text[:60]), [" ".join(text[:8]), " ".join(text[:12])])])
    prompts = [" ".join(text[number : number + context - 80]) for number in range(concurrency)]
    with ThreadPoolExecutor(concurrency) as callers:
        list(callers.map(lambda prompt: engine.greedy(prompt, 64), prompts))
    # A prompt read alone is read in larger slices, and the caches of those before it are still there.
    engine.greedy(" ".join(text[concurrency : concurrency + context - 80]), 64)


def words(tokenizer: Path) -> list[str]:
    """Words that are one token each after a space (byte-level BPE writes the space as Ġ)."""
    settings = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = settings["model"]["vocab"]
    return [token[1:] for token in tokens if token[0] == "Ġ" and token[1:].isascii() and token[1:].isalpha()]


def bare_interpreter_bytes() -> int:
    """RSS of a Python that has imported nothing."""
    code = "print(next(line for line in open('/proc/self/status') if line.startswith('VmRSS:')).split()[1])"
    return int(subprocess.check_output([sys.executable, "-c", code])) * 1024


def _cgroup_peak(engine: LocalEngine) -> int | None:
    pid = engine.engine.pid
    group = cgroup_of(pid) if pid is not None else None
    return group.peak_bytes() if group is not None and "edgewright-engine" in group.folder.name else None
