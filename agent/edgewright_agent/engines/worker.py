"""The command line of `edgewright_agent.engine_worker`, which is two engines: ONNX Runtime GenAI and the fake one."""

from __future__ import annotations

import os
from pathlib import Path

from edgewright.manifest import Manifest
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.launching import Launch
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_agent.engines.protocol import EngineLimits

# glibc's malloc (mallopt(3)): one thread allocates, so few arenas; blocks from 1 MiB on (KV caches, logits) go back to
# the kernel when they are freed, so that memory is what is in use and not what once was.
LEAN_MALLOC = {
    "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**17),
}  # fmt: skip


def spare_bytes(manifest: Manifest, budget_bytes: int) -> int:
    """What the budget leaves beyond the upper end of the predicted peak."""
    return max(0, budget_bytes - manifest.memory.predicted_peak_bytes - manifest.memory.error_bytes)


def worker_launch(
    interpreter: str,
    kind: str,
    tree: Path,
    manifest: Manifest,
    limits: EngineLimits,
    socket: Path,
    adapter: Path | None,
) -> Launch:
    """The worker's engine `kind` in `interpreter`, where Edgewright must be installed too."""
    options = {
        "--engine-folder": tree / manifest.engine.folder,
        "--tokenizer-folder": tree / "tokenizer",
        "--model": manifest.name,
        "--context-tokens": limits.context_tokens,
        "--concurrency": limits.concurrency,
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
    return Launch(command, environment, EngineClient(socket, manifest.name))
