"""What telemetry costs in tokens per second: `python benchmarks/telemetry_cost.py ARTIFACT [--board orin-nano]`.

One engine process decodes all the time. From block to block of tokens the agent's sampling thread, at 10 Hz, is
switched in the order on, off, off, on, so that what else the machine does, and the growing context, meet both alike.
Printed: the ratio on ÷ off of tokens per second over all pairs of neighbouring blocks, its median and geometric mean,
with a 95 % interval; and the CPU seconds that sampling takes per second. The limit is a loss of 1 %.

--board gives the thread the sensors of a Jetson, from the trees of the tests (two files a rail, ten times a second);
otherwise it reads this machine's own.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from edgewright_agent.engines import Engine, EngineLimits, GenerationRequest, Token, start_engine
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_builder.artifact.artifact import open_artifact
from edgewright_profiles import load_profile

LIMIT = 0.99
PROMPT_TOKENS_MAX = 64
SETTLING_TOKENS = 12  # they travel together, so that the switch may come a few late
BLOCKS_MAX = 32  # of a generation: a progress line after each
PROMPT = "A short story about the sea: "
PROFILES = {
    "orin-nano": "jetson-orin-nano-8gb",
    "agx-orin": "jetson-agx-orin-64gb",
    "thor": "jetson-agx-thor-t5000",
}


def main() -> None:
    """Measures and prints; exits with 1 if certainly more than 1 % is lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--board", choices=PROFILES)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=96, help="of a block")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        telemetry = sensors(options.board, Path(folder))
        lost = asyncio.run(measure(options.artifact, telemetry, options.pairs, options.tokens, Path(folder)))
    sys.exit(1 if lost else 0)


def sensors(board: str | None, folder: Path) -> Telemetry:
    """Telemetry of this machine, or of a board's recorded files."""
    if board is None:
        return Telemetry(load_profile("this-host"))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.fixtures.boards import write_board

    return Telemetry(load_profile(PROFILES[board]), write_board(board, folder / "board"))


async def measure(artifact: Path, telemetry: Telemetry, pairs: int, tokens: int, folder: Path) -> bool:
    """Prints the result; whether the limit is missed."""
    opened = open_artifact(artifact)
    manifest = opened.manifest
    context_tokens = manifest.limits.context_tokens
    engine = await start_engine(
        manifest.engine.kind, opened.folder, manifest, EngineLimits(context_tokens),
        runtime_dir=folder, ready_timeout_seconds=300,
    )  # fmt: skip
    telemetry.set_engine_memory_source(engine.memory)
    ratios: list[float] = []
    try:
        while len(ratios) < pairs:
            longest = (context_tokens - PROMPT_TOKENS_MAX) // tokens - 1
            blocks = min(longest, 2 * (pairs - len(ratios)), BLOCKS_MAX)
            ratios += await one_generation(engine, telemetry, tokens, blocks)
            print(
                f"{len(ratios)} of {pairs} pairs, median so far {statistics.median(ratios):.4f}", flush=True
            )
    finally:
        telemetry.stop()
        await engine.stop()
    return report(ratios, sampling_cpu(telemetry), tokens)


async def one_generation(engine: Engine, telemetry: Telemetry, tokens: int, blocks: int) -> list[float]:
    """Ratios on ÷ off of the pairs of blocks in one generation, which begin in turn with on and with off.

    The first block only warms up, and a block's first tokens, in which the thread starts or ends, are not timed.
    """
    switches = [True, False, False, True] * max(1, blocks // 4)
    request = GenerationRequest(prompt=PROMPT, max_tokens=(len(switches) + 1) * tokens, ignore_eos=True)
    seconds: list[float] = []
    count, begin = 0, 0.0
    async for event in engine.generate(request):
        if not isinstance(event, Token):
            continue
        count += 1
        block, place = divmod(count - 1, tokens)
        if place == 0 and 1 <= block <= len(switches):
            telemetry.start() if switches[block - 1] else telemetry.stop()
        assert event.at_seconds is not None, "the ONNX Runtime worker says when"
        if place == SETTLING_TOKENS:
            begin = event.at_seconds
        elif place == tokens - 1 and block >= 1:
            seconds.append(event.at_seconds - begin)
    pairs = zip(seconds[::2], seconds[1::2], switches[::2], strict=True)
    return [second / first if first_is_on else first / second for first, second, first_is_on in pairs]


def sampling_cpu(telemetry: Telemetry, seconds: float = 5.0) -> float:
    """CPU seconds of this process per second of sampling, and nothing else."""
    telemetry.start()
    before = time.process_time()
    time.sleep(seconds)
    used = time.process_time() - before
    telemetry.stop()
    return used / seconds


def report(ratios: list[float], cpu: float, tokens: int) -> bool:
    """Prints the result; whether the limit is missed. Averaged are logarithms, to which on and off are alike."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(mean - 1.96 * error), math.exp(mean + 1.96 * error)
    print(f"\n{platform.machine()}, {len(ratios)} pairs of blocks of {tokens} tokens")
    print(f"on ÷ off: median {statistics.median(ratios):.4f}, geometric mean {math.exp(mean):.4f}")
    print(f"95 % interval of that mean: {low:.4f} to {high:.4f}")
    print(f"sampling takes {cpu:.2%} of one core")
    verdict = (
        "holds"
        if low >= LIMIT
        else "MISSED"
        if high < LIMIT
        else "not decided: too much noise, or too few pairs"
    )
    print(f"limit {LIMIT}: {verdict}")
    return high < LIMIT


if __name__ == "__main__":
    main()
