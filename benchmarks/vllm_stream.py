"""How fast one stream of vLLM decodes, started as the agent starts it.

    EDGEWRIGHT_VLLM=…/bin/vllm python benchmarks/vllm_stream.py CHECKPOINT [--threads N] [--artifact OUT]

CHECKPOINT is a GPTQ folder, e.g. RUN/quantize/model. `--artifact` keeps the artifact made of it, for
`serving.py --vllm-artifact`. Prints JSON: median and range of tokens per second, time to the first token, the kernels
vLLM chose and the memory of its processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from serving_peers import EnginePeer

from edgewright.manifest import Manifest
from edgewright_agent.engines import EngineLimits, available_engines, start_engine
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_builder.artifact.artifact import open_artifact, write_artifact
from edgewright_builder.artifact.fields import artifact_files
from edgewright_builder.export.checkpoint import EMBEDDING_BITS, export_checkpoint
from edgewright_builder.fit.architecture import architecture_from_config
from edgewright_builder.models.folder import read_config

PROMPT = "The board reads its sensors once a second and writes what it finds to a file. " * 4


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--artifact", type=Path, help="where to keep the artifact")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgewright-") as scratch:
        artifact = options.artifact or Path(scratch) / "artifact"
        make_artifact(options.checkpoint, artifact, options.context)
        measured = measure(artifact, options.threads, options.tokens, options.rounds, Path(scratch))
        print(json.dumps(asyncio.run(measured), indent=1))


def make_artifact(checkpoint: Path, artifact: Path, context_tokens: int) -> None:
    """A release of the checkpoint that vLLM serves, signed by nobody in particular."""
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        export_checkpoint(checkpoint, Path(folder))
        fields = manifest_fields(checkpoint, context_tokens)
        write_artifact(artifact, artifact_files(Path(folder)), fields, Ed25519PrivateKey.generate())


def manifest_fields(checkpoint: Path, context_tokens: int, concurrency: int = 1) -> dict[str, Any]:
    """Enough of a manifest to start vLLM."""
    config = read_config(checkpoint)
    model, version = (
        architecture_from_config(config),
        next(engine.version for engine in available_engines() if engine.kind == "vllm"),
    )
    return {
        "name": "vllm-benchmark", "version": "0", "device_profiles": ["this-host"],
        "engine": {"kind": "vllm", "version": version},
        "model": {
            "architecture": model.model_type, "parameters": model.parameters, "layers": model.layers,
            "hidden_size": model.hidden_size, "vocab_size": model.vocab_size,
            "tied_embeddings": model.tied_embeddings, "weight_bits": 4, "embedding_bits": EMBEDDING_BITS,
            "group_size": config["quantization_config"]["group_size"],
        },
        "limits": {"context_tokens": context_tokens, "concurrency": concurrency},
        "memory": {"budget_bytes": 1, "predicted_peak_bytes": 1, "error_bytes": 0, "calibrated_on": "nothing"},
    }  # fmt: skip


async def measure(artifact: Path, threads: int, tokens: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Decode rates of greedy generations one after another; the first warms up and does not count."""
    manifest: Manifest = open_artifact(artifact).manifest
    limits = EngineLimits(manifest.limits.context_tokens, 1, threads)
    engine = await start_engine(
        "vllm", artifact, manifest, limits, runtime_dir=scratch, ready_timeout_seconds=600
    )
    try:
        timings = [await EnginePeer(engine).run(PROMPT, tokens) for _ in range(rounds + 1)][1:]
        rates = [timing.decode_rate for timing in timings]
        return {
            "threads": threads, "cores": os.cpu_count(), "tokens": tokens, "rounds": rounds,
            "tokens_per_second": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)},
            "ttft_seconds": statistics.median(timing.first_seconds for timing in timings),
            "prompt_tokens": timings[0].prompt_tokens,
            "kernels": list(engine.kernels()),
            "peak_bytes": engine.memory().peak_bytes,
        }  # fmt: skip
    finally:
        await engine.stop()


if __name__ == "__main__":
    main()
