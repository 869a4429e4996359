"""What 4 bits do for the time of a token: `python benchmarks/weight_bits.py [--model llama-3.2-1b] [--rounds 5]`.

Random weights in the model's shape, once as W4A16 (head and embedding at 8 bits) and once in float32, which is what
ONNX Runtime's CPU provider runs where a GPU would run 16 bits; both loaded, asked in turn with the same prompt, the
order alternating. TPOT depends on the shape, not on the values. Prints medians, spread and the ratio of each round.
Float32 takes four bytes a parameter on the disk and again in memory: 3B needs 13 GB of either.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from engine_shapes import case
from serving_peers import ChildPeer, Timing, child_peer
from synthetic_export import write_synthetic_export

from edgewright_agent.engines.process.cpus import default_threads

PROMPT_TOKENS, GENERATED_TOKENS = 32, 16


def main() -> None:
    """Writes both exports, then compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="llama-3.2-1b")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folders = write_exports(options.model, Path(scratch))
        asyncio.run(measure(folders, options.threads, options.rounds))


def write_exports(model: str, scratch: Path) -> dict[str, Path]:
    """Folders by name of the precision."""
    shape = case(model, 1, 1, 8, 1).architecture
    quantized = case(model, shape.layers, shape.largest_group_size(), 8, 512).configuration
    full = replace(quantized, weight_bits=32, embedding_bits=32)
    folders = {"fp32": scratch / "fp32", "W4A16": scratch / "w4a16"}
    for configuration, folder in zip((full, quantized), folders.values(), strict=True):
        folder.mkdir()
        write_synthetic_export(shape, configuration, folder)
        size_bytes = (folder / "model.onnx.data").stat().st_size
        print(f"{model} {folder.name}: {size_bytes / 1e9:.2f} GB of weights", flush=True)
    return folders


async def measure(folders: Mapping[str, Path], threads: int, rounds: int) -> None:
    """Alternates between the two; the first round warms up and does not count."""
    script = str(Path(__file__).with_name("bare_generate.py"))
    timings: dict[str, list[Timing]] = {name: [] for name in folders}
    async with AsyncExitStack() as stack:
        peers: dict[str, ChildPeer] = {}
        for name, folder in folders.items():
            command = (sys.executable, script, str(folder), str(threads))
            peers[name] = await stack.enter_async_context(child_peer(*command, environment=os.environ))
        for number in range(rounds + 1):
            for name in list(peers)[:: 1 if number % 2 else -1]:
                timing = await peers[name].run([7] * PROMPT_TOKENS, GENERATED_TOKENS)
                if number:
                    timings[name].append(timing)
    print_table(timings, threads)


def print_table(timings: Mapping[str, list[Timing]], threads: int) -> None:
    """Medians, their range, and the ratio to float32."""
    print(f"\n{threads} threads\n\n| weights | TPOT median ms | min to max | of fp32 |")
    print("|---|--:|--:|--:|")
    steps = {name: [1000 / timing.decode_rate for timing in found] for name, found in timings.items()}
    for name, found in steps.items():
        ratios = [step / base for step, base in zip(found, steps["fp32"], strict=True)]
        print(
            f"| {name} | {statistics.median(found):.1f} | {min(found):.1f} to {max(found):.1f} "
            f"| {statistics.median(ratios):.3f} |"
        )


if __name__ == "__main__":
    main()
