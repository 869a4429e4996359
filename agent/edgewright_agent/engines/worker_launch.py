"""The command line of `edgewright_agent.engine_worker`, which is two engines: ONNX Runtime and the fake one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from edgewright.manifest import Manifest
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_agent.engines.process.death import LogWords
from edgewright_agent.engines.protocol.launch import EngineLimits, Launch

# Sequences that share the worker's KV cache at the same time, unless the plan allows more whole contexts.
SEQUENCES_MAX = 8
WORDS = LogWords(out_of_memory=r"Failed to allocate memory|not enough memory")  # of ONNX Runtime
# Settings of glibc's malloc (mallopt(3)). One thread allocates, so few arenas are needed. Blocks of 1 MiB or more
# (KV caches, logits) go back to the kernel when they are freed, so that the process holds only what is in use.
LEAN_MALLOC = {
    "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**17),
}  # fmt: skip


def spare_bytes(manifest: Manifest, budget_bytes: int) -> int:
    """Returns what the budget leaves beyond the upper end of the predicted peak."""
    return max(0, budget_bytes - manifest.memory.bound_bytes)


def worker_launch(
    interpreter: str,
    kind: str,
    tree: Path,
    manifest: Manifest,
    limits: EngineLimits,
    socket: Path,
    adapter: Path | None,
    *,
    slots_min: int = 1,
) -> Launch:
    """Returns how the worker's engine `kind` is started in `interpreter`, where Edgewright must be installed too."""
    options = {
        "--engine-folder": tree / manifest.engine.folder,
        "--tokenizer-folder": tree / "tokenizer",
        "--model": manifest.name,
        "--context-tokens": limits.context_tokens,
        "--concurrency": limits.concurrency,
        "--sequences": max(SEQUENCES_MAX, limits.concurrency),
        "--threads": limits.threads or default_threads(),
        "--socket": socket,
    }
    if adapter is not None:
        options["--adapter"] = adapter
    if limits.memory_bytes is not None:
        options["--spare-bytes"] = spare_bytes(manifest, limits.memory_bytes)
    words = [str(word) for option in options.items() for word in option]
    command = [interpreter, "-m", "edgewright_agent.engine_worker", kind, *words]
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"} | LEAN_MALLOC
    http = EngineClient(socket, manifest.name)
    return Launch(
        command, environment, http, words=WORDS, slots_min=slots_min, traceback_signal=signal.SIGUSR2
    )
