"""What an adapter release costs and saves: bytes, the time to switch, and tokens per second.

    python benchmarks/adapter.py BASE_ARTIFACT ADAPTER_ARTIFACT [--plain ARTIFACT] [--rounds 7]

The same engine process serves base and adapter in turns; the limit for bytes is 5 % of the base. What the prepared
graph costs where no adapter is on shows against `--plain`: the same model exported without places for adapters.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import tempfile
import time
from pathlib import Path

from edgewright_agent.engines import Engine, EngineLimits, GenerationRequest, Token, start_engine
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_builder.artifact.artifact import Artifact, open_artifact

LIMIT_FRACTION = 0.05
PROMPT = "A short story about the sea: " * 20
TOKENS = 64


async def started(artifact: Artifact, runtime_dir: Path) -> tuple[Engine, float]:
    """An engine on this artifact, and the seconds until it answered."""
    manifest = artifact.manifest
    began = time.monotonic()
    engine = await start_engine(
        manifest.engine.kind, artifact.folder, manifest, EngineLimits(manifest.limits.context_tokens),
        runtime_dir=runtime_dir, ready_timeout_seconds=300,
    )  # fmt: skip
    return engine, time.monotonic() - began


async def rate(engine: Engine) -> tuple[float, float]:
    """(seconds to the first token, tokens per second after it) of one greedy generation."""
    request = GenerationRequest(prompt=PROMPT, max_tokens=TOKENS, ignore_eos=True)
    began = time.monotonic()
    times = [time.monotonic() async for event in engine.generate(request) if isinstance(event, Token)]
    return times[0] - began, (len(times) - 1) / (times[-1] - times[0])


def spread(values: list[float], unit: str) -> str:
    """Median and range."""
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g})"


async def measure(base: Artifact, adapter: Artifact, plain: Artifact | None, rounds: int) -> None:
    """Prints everything."""
    spec = adapter.manifest.adapter
    assert spec is not None, "an adapter's artifact"
    file = adapter.folder / spec.path
    share = adapter.manifest.size_bytes / base.manifest.size_bytes
    print(
        f"bytes: adapter {adapter.manifest.size_bytes}, base {base.manifest.size_bytes}: {share:.2%} "
        f"(limit {LIMIT_FRACTION:.0%}: {'holds' if share <= LIMIT_FRACTION else 'MISSED'})"
    )
    with tempfile.TemporaryDirectory(prefix="edgewright-") as runtime:
        engine, seconds = await started(base, Path(runtime))
        cold = [seconds]
        engines = {"base": engine, "adapter": engine}
        if plain is not None:
            engines["plain"] = (await started(plain, Path(runtime)))[0]
        switches: list[float] = []
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for _ in range(rounds):
            for name, each in engines.items():
                if name != "plain":
                    began = time.monotonic()
                    await each.use_adapter(file if name == "adapter" else None, "model")
                    switches.append(time.monotonic() - began)
                rates[name].append(await rate(each))
        peak = {name: each.memory().peak_bytes / 2**20 for name, each in engines.items()}
        for each in set(engines.values()):
            await each.stop()
        for _ in range(2):
            engine, seconds = await started(base, Path(runtime))
            cold.append(seconds)
            await engine.stop()
    print(f"switch: {spread(switches, 's')}; cold start of the base: {spread(cold, 's')}")
    for name, values in rates.items():
        ratio = statistics.median(b[1] / a[1] for a, b in zip(rates["base"], values, strict=True))
        print(
            f"{name}: {spread([value[1] for value in values], 'tokens/s')}, {ratio:.2f} × base; "
            f"TTFT {spread([value[0] for value in values], 's')}; peak of its engine {peak[name]:.0f} MiB"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{platform.machine()}, {default_threads()} threads, {options.rounds} rounds")
    plain = None if options.plain is None else open_artifact(options.plain)
    asyncio.run(measure(open_artifact(options.base), open_artifact(options.adapter), plain, options.rounds))


if __name__ == "__main__":
    main()
