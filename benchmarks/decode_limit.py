"""How near decoding is to what the memory allows: the model's bytes per token against the bandwidth of the same run.

    python benchmarks/decode_limit.py ARTIFACT [--gguf FILE]

One token reads every weight once, and the weights are larger than the caches. So no runtime decodes faster than the
memory's bandwidth ÷ the bytes of the weights. In each round, one after the other:
  memory   as many threads as the engine has read memory that no cache holds, in a row
  bare     onnxruntime-genai decodes with ARTIFACT's model
  llama    llama-server decodes with FILE, the GGUF of the same GPTQ checkpoint
Prints medians, and for each runtime what its share of the limit is and how much faster any runtime could be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from serving import DECODE_PROMPT, HERE
from serving_llama import pack
from serving_peers import Peer, child_peer

from edgewright_agent.engines import EngineLimits, start_engine
from edgewright_agent.engines.llama_cpp.launch import KIND
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_agent.engines.served import ServedEngine
from edgewright_builder.artifact.artifact import open_artifact

GB = 1e9
READ_BYTES = 2**30  # per reading: far more than the caches hold
READINGS = 3  # the fastest counts


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(measure(parser.parse_args()))


async def measure(options: argparse.Namespace) -> None:
    """Starts the runtimes, then runs the rounds."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        peers, weights = await start_runtimes(options, scratch, stack)
        memory = np.ones(READ_BYTES // 8)
        bandwidths: list[float] = []
        rates: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(options.rounds):
            bandwidths.append(read_bandwidth(memory, options.threads))
            for name, peer in peers.items():
                rates[name].append((await peer.run(DECODE_PROMPT, options.tokens)).decode_rate)
        show(options.threads, bandwidths, rates, weights)


async def start_runtimes(
    options: argparse.Namespace, scratch: Path, stack: AsyncExitStack
) -> tuple[dict[str, Peer], dict[str, int]]:
    """Returns the runtimes, loaded, and the bytes of each one's weights."""
    artifact = open_artifact(options.artifact)
    folder = options.artifact / artifact.manifest.engine.folder
    tokenizer = options.artifact / "tokenizer" / "tokenizer.json"
    command = [sys.executable, HERE / "bare_generate.py", folder, options.threads, tokenizer]
    peers: dict[str, Peer] = {
        "bare": await stack.enter_async_context(child_peer(*map(str, command), environment=os.environ))
    }
    weights = {"bare": sum(path.stat().st_size for path in folder.glob("*.data"))}
    if options.gguf:
        packed = pack(options, scratch / "artifact", Ed25519PrivateKey.generate())
        limits = EngineLimits(packed.manifest.limits.context_tokens, 1, options.threads)
        engine = await start_engine(
            KIND, packed.folder, packed.manifest, limits, runtime_dir=scratch, ready_timeout_seconds=300
        )
        stack.push_async_callback(engine.stop)
        assert isinstance(engine, ServedEngine)
        client = [sys.executable, str(HERE / "llama_server_client.py"), str(engine.socket)]
        peers["llama"] = await stack.enter_async_context(child_peer(*client, environment=os.environ))
        weights["llama"] = options.gguf.stat().st_size
    return peers, weights


def read_bandwidth(memory: NDArray[np.float64], threads: int) -> float:
    """Returns the bytes per second at which threads read their parts of `memory`, at best of a few times."""
    parts = np.array_split(memory, threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(READINGS):
            begin = time.perf_counter()
            list(pool.map(np.max, parts))
            seconds.append(time.perf_counter() - begin)
    return memory.nbytes / min(seconds)


def show(
    threads: int, bandwidths: list[float], rates: dict[str, list[float]], weights: dict[str, int]
) -> None:
    """Prints the bandwidth, then each runtime beside what it allows."""
    bandwidth = statistics.median(bandwidths)
    spread = f"({min(bandwidths) / GB:.1f} to {max(bandwidths) / GB:.1f})"
    print(f"{threads} threads read {bandwidth / GB:.1f} GB/s {spread}; load {os.getloadavg()[0]:.1f}\n")
    print(
        "| runtime | weights MB | tokens/s | reads GB/s | of the bandwidth | limit tokens/s | limit / now |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, values in rates.items():
        rate, limit = statistics.median(values), bandwidth / weights[name]
        tokens = f"{rate:.1f} ({min(values):.1f} to {max(values):.1f})"
        print(
            f"| {name} | {weights[name] / 1e6:.1f} | {tokens} | {rate * weights[name] / GB:.1f} | "
            f"{rate / limit:.2f} | {limit:.0f} | {limit / rate:.2f} |"
        )


if __name__ == "__main__":
    main()
