"""A board under mixed load for a while: `python benchmarks/soak.py ARTIFACT --credentials DIR [--minutes 30]`.

Clients generate, score, stream, leave in the middle and send nonsense over gRPC and the OpenAI API, while the
engine's process is killed now and then. At the end nothing may be stuck or wrong, nothing in flight, and the memory
of the agent and of each engine flat. Prints every outcome, the slope of RSS by least squares, and exits 1 if a promise
is broken. With `--hostile` six good clients generate beside one that does its worst, and no engine is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
from serving_agent import Agent, running_agent
from soak_attacks import ATTACKS
from soak_hostile import good_clients, hostile_soak
from soak_load import Clients, Outcome, ask

from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.push.push import push

MIB = 2**20
SAMPLE_SECONDS = 5.0
SETTLING_SHARE = 0.25  # of a process's samples: caches fill before memory can be flat
Samples = list[tuple[float, float]]  # seconds, MiB


def main() -> None:
    """Soaks and judges."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--credentials", type=Path, required=True, help="folder of `edgewright keys create`")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--hostile", action="store_true", help="six good clients and a hostile one: `soak_hostile`"
    )
    parser.add_argument(
        "--attack", action="append", choices=list(ATTACKS), help="with --hostile: only this one; repeat"
    )
    sys.exit(asyncio.run(soak(parser.parse_args())))


async def soak(options: argparse.Namespace) -> int:
    """Everything at once, then the verdict: 0 if every promise was kept."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        credentials = options.credentials
        agent = stack.enter_context(
            running_agent(scratch / "store", credentials, knows_certificates=options.hostile)
        )
        client = await stack.enter_async_context(
            DeviceClient(parse_address(agent.grpc), credentials if options.hostile else None)
        )
        await push(client, options.artifact, None)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=agent.openai_url, timeout=None))
        clients, end = Clients(client, http), time.monotonic() + 60 * options.minutes
        if options.hostile:
            good = list(good_clients(agent, credentials, scratch))
            kinds = options.attack or ()
            return await hostile_soak(agent, clients, good, options.minutes, options.seed, kinds)
        outcomes: Counter[tuple[str, Outcome]] = Counter()
        said: Counter[str] = Counter()
        memory: dict[str, Samples] = {}
        await asyncio.gather(
            *(
                load(clients, end, random.Random(f"{options.seed}/{n}"), outcomes, said)
                for n in range(options.clients)
            ),
            sample_memory(agent, end, memory),
            kill_engines(agent, end, options.kills),
        )
        left = await in_flight_at_rest(client)
    return report(outcomes, said, memory, left)


async def load(
    clients: Clients,
    end: float,
    rng: random.Random,
    outcomes: Counter[tuple[str, Outcome]],
    said: Counter[str],
) -> None:
    """One client, one request after the other; one that is turned away waits a moment, as a client should."""
    while time.monotonic() < end:
        kind, outcome, sentence = await ask(clients, rng)
        outcomes[kind, outcome] += 1
        if sentence:
            said[f"{outcome.value}: {sentence[:160]}"] += 1
        if outcome in (Outcome.BUSY, Outcome.FAILED):
            await asyncio.sleep(rng.uniform(0.2, 1.0))


async def sample_memory(agent: Agent, end: float, memory: dict[str, Samples]) -> None:
    """RSS of the agent and of whichever engine lives, each process a series of its own."""
    while time.monotonic() < end:
        for name, process in (("agent", agent.process), *engines(agent)):
            try:
                rss_mib = process.memory_info().rss / MIB
            except psutil.NoSuchProcess:
                continue
            memory.setdefault(name, []).append((time.monotonic(), rss_mib))
        await asyncio.sleep(SAMPLE_SECONDS)


async def kill_engines(agent: Agent, end: float, kills: int) -> None:
    """SIGKILL at even distances."""
    pause_seconds = (end - time.monotonic()) / (kills + 1)
    for _ in range(kills):
        await asyncio.sleep(pause_seconds)
        for _, engine in engines(agent):
            engine.kill()


def engines(agent: Agent) -> list[tuple[str, psutil.Process]]:
    """The agent's children."""
    return [(f"engine {child.pid}", child) for child in agent.process.children()]


async def in_flight_at_rest(client: DeviceClient) -> int:
    """Requests the agent still counts as under way once nobody asks; they may take a moment to be let go."""
    for _ in range(20):
        serving = (await client.get_snapshot()).serving
        if serving.requests_in_flight == 0:
            return 0
        await asyncio.sleep(0.5)
    return serving.requests_in_flight


def report(
    outcomes: Counter[tuple[str, Outcome]], said: Counter[str], memory: dict[str, Samples], left: int
) -> int:
    """The tables, and 1 if a promise is broken."""
    print("| request | " + " | ".join(outcome.value for outcome in Outcome) + " |")
    print("|---" + "|--:" * len(Outcome) + "|")
    for kind in sorted({kind for kind, _ in outcomes}):
        print(f"| {kind} | " + " | ".join(str(outcomes[kind, outcome]) for outcome in Outcome) + " |")
    for sentence, count in said.most_common(12):
        print(f"  {count} × {sentence}")
    print("\n| process | minutes | RSS first, median, last MiB | slope MiB per hour |\n|---|--:|--:|--:|")
    for name, samples in memory.items():
        settled = samples[int(len(samples) * SETTLING_SHARE) :]
        sizes = [mib for _, mib in samples]
        minutes = (samples[-1][0] - samples[0][0]) / 60
        print(
            f"| {name} | {minutes:.1f} | {sizes[0]:.1f}, {statistics.median(sizes):.1f}, {sizes[-1]:.1f} "
            f"| {slope_per_hour(settled):+.2f} |"
        )
    broken = sum(
        count for (_, outcome), count in outcomes.items() if outcome in (Outcome.STUCK, Outcome.WRONG)
    )
    print(
        f"\n{sum(outcomes.values())} requests; {broken} stuck or wrong; {left} still counted in flight at rest"
    )
    return int(bool(broken or left))


def slope_per_hour(samples: Sequence[tuple[float, float]]) -> float:
    """MiB per hour by least squares; 0 for fewer than three samples."""
    if len(samples) < 3:
        return 0.0
    seconds, sizes = zip(*samples, strict=True)
    return statistics.linear_regression(seconds, sizes).slope * 3600


if __name__ == "__main__":
    main()
