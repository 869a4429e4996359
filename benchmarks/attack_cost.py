"""What each attack of `soak_attacks.py` costs: `python benchmarks/attack_cost.py ARTIFACT --credentials DIR [ATTACK…]`.

Prints, for each attack, the processor time of the agent and of the engine, how long the answer took, by how much the
engine's memory grew at its peak, and by how much a neighbour's text came later than without the attack, with the
standard error of that median. The memory is the most of all times. Processor time hardly depends on what else the
machine does, so that a busy one measures too. The neighbour's delay needs a quiet machine, and holds what the attacker
itself computes on the same cores. Exits 1 if an attack delays a neighbour by more than 50 ms, beyond what two standard
errors explain, or takes the engine more than 16 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import psutil
from agent_token_cost import cpu_seconds
from serving_agent import MIB, Agent, running_agent
from soak_attacks import ATTACKS, hostile_client
from soak_load import SENTENCE

from edgewright.v1.inference_pb2 import GenerateRequest
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.push.push import push

TIMES = 5
PAIRS = 11  # of a neighbour's texts, without the attack and with it
NEIGHBOUR_TOKENS = 64
DELAY_MAX_MS, PEAK_MAX_MIB = 50.0, 16.0
HEAD = "| attack | answer | agent ms | engine ms | answered after ms | engine's peak MiB | neighbour's delay ms |"
SETTLING_SECONDS = 0.05  # in which the agent ends what the attack began


async def measure(artifact: Path, credentials: Path, names: Sequence[str]) -> int:
    """Prints a line for each attack; returns how many were over a limit."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        agent = stack.enter_context(running_agent(scratch / "store", credentials))
        client = await stack.enter_async_context(DeviceClient(parse_address(agent.grpc), None))
        await push(client, artifact, None)
        http = await stack.enter_async_context(hostile_client(agent.openai_url))
        print(HEAD + "\n|---|--:|" + "--:|" * 5)
        over = 0
        for name in names:
            attack = partial(ATTACKS[name], agent.openai_url, http)
            answer = await attack()  # warms up
            cost = await costs(agent, attack)
            delays = [await neighbours_delay(client, attack) for _ in range(PAIRS)]
            delay, error = statistics.median(delays), median_error(delays)
            over += delay - 2 * error > DELAY_MAX_MS or cost[-1] > PEAK_MAX_MIB
            figures = " | ".join(f"{figure:.1f}" for figure in cost)
            print(f"| {name} | {answer} | {figures} | {delay:.1f} ± {error:.1f} |", flush=True)
        return over


async def costs(agent: Agent, attack: Callable[[], Awaitable[str]]) -> list[float]:
    """Milliseconds of the agent, of the engine and until the answer, as medians; and the engine's highest peak, MiB."""
    processes = (agent.process, agent.process.children()[0])
    times, peaks = [], []
    for _ in range(TIMES):
        before, began = _milliseconds(processes), time.perf_counter()
        resident = reset_peak(processes[1])
        await attack()
        answered = (time.perf_counter() - began) * 1e3
        await asyncio.sleep(SETTLING_SECONDS)
        spent = [after - first for after, first in zip(_milliseconds(processes), before, strict=True)]
        times.append((*spent, answered))
        peaks.append((peak_bytes(processes[1]) - resident) / MIB)
    return [*(statistics.median(column) for column in zip(*times, strict=True)), max(peaks)]


def median_error(values: Sequence[float]) -> float:
    """The standard error of the median of values that are distributed normally."""
    return math.sqrt(math.pi / 2 / len(values)) * statistics.stdev(values)


async def neighbours_delay(client: DeviceClient, attack: Callable[[], Awaitable[str]]) -> float:
    """Milliseconds by which a neighbour's text takes longer with one attack in it than without."""
    alone = await _generation_seconds(client)
    beside = asyncio.create_task(_generation_seconds(client))
    await asyncio.sleep(alone / 4)
    await attack()
    return (await beside - alone) * 1e3


async def _generation_seconds(client: DeviceClient) -> float:
    began = time.perf_counter()
    request = GenerateRequest(prompt=SENTENCE, max_tokens=NEIGHBOUR_TOKENS, ignore_eos=True)
    async for _ in client.generate(request):
        pass
    return time.perf_counter() - began


def reset_peak(process: psutil.Process) -> int:
    """Bytes of resident memory now, from which `peak_bytes` counts on (Linux, proc(5), clear_refs)."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
    return int(process.memory_info().rss)


def peak_bytes(process: psutil.Process) -> int:
    """The most resident memory since `reset_peak`."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def _milliseconds(processes: Sequence[psutil.Process]) -> list[float]:
    return [cpu_seconds(process) * 1e3 for process in processes]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help="all, where none is named")
    parser.add_argument("--credentials", type=Path, required=True, help="folder of `edgewright keys create`")
    options = parser.parse_args()
    attacks = options.attacks or list(ATTACKS)
    sys.exit(min(1, asyncio.run(measure(options.artifact, options.credentials, attacks))))


if __name__ == "__main__":
    main()
