"""Runs on an emulated ARM processor: imports the agent, loads a release, and completes its golden prompt.

    python3 golden_prompt.py ARTIFACT

Ends with 1 where the board would deny the release, as the agent's probation does.
"""

import platform
import sys
import time
from pathlib import Path

import numpy as np

import edgewright_agent.cli  # noqa: F401 - every module that a board needs is there
from edgewright.manifest import parse_manifest
from edgewright_agent.engine_worker.model.backend import CachePlace
from edgewright_agent.engine_worker.model.onnx import OnnxBackend


def complete(backend: OnnxBackend, prompt: str, count: int, context: int) -> list[int]:
    """Returns the likeliest tokens, one after the other."""
    place, tokens = CachePlace(0, context), backend.text.encode(prompt, special=True)
    row = backend.read(place, 0, tokens, None)[-1]
    told = [int(np.argmax(row))]
    while len(told) < count:
        row = backend.step([place], [len(tokens) + len(told) - 1], [told[-1]], None)[0]
        told.append(int(np.argmax(row)))
    return told


def main(artifact: Path) -> int:
    manifest = parse_manifest((artifact / "manifest.json").read_bytes())
    golden, began = manifest.golden, time.monotonic()
    if golden is None:
        sys.exit(f"{artifact} has no golden prompt.")
    context = min(manifest.limits.context_tokens, 256)
    backend = OnnxBackend(artifact / "engine", artifact / "tokenizer", context, 1)
    loaded = time.monotonic() - began
    told = complete(backend, golden.prompt, len(golden.tokens), context)
    where = f"Python {platform.python_version()}, {platform.machine()}"
    print(
        f"{where}: loaded in {loaded:.1f} s, {golden.same_tokens(told)} of {len(golden.tokens)} tokens "
        f"are the host's, {'accepted' if golden.accepts(told) else 'denied'}"
    )
    return int(not golden.accepts(told))


sys.exit(main(Path(sys.argv[1])))
