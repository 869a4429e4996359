"""What each attack of `soak_hostile.py` costs: `python benchmarks/attack_cost.py ARTIFACT --credentials DIR [ATTACK…]`.

Prints, for each attack, the processor time of the agent and of the engine, and how long the answer took; medians of a
few. Processor time hardly depends on what else the machine does, so that a busy one measures too.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
from agent_token_cost import cpu_seconds
from serving_agent import running_agent
from soak_hostile import ANSWER_SECONDS, ATTACKS

from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.push.push import push

TIMES = 5
SETTLING_SECONDS = 0.05  # in which the agent ends what the attack began


async def measure(artifact: Path, credentials: Path, names: Sequence[str]) -> None:
    """Prints a line for each attack; the first of each warms up and does not count."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        agent = stack.enter_context(running_agent(scratch / "store", credentials))
        client = await stack.enter_async_context(DeviceClient(parse_address(agent.grpc), None))
        await push(client, artifact, None)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=agent.openai_url, timeout=ANSWER_SECONDS)
        )
        processes = (agent.process, agent.process.children()[0])
        print("| attack | answer | agent ms | engine ms | answered after ms |\n|---|--:|--:|--:|--:|")
        for name in names:
            costs, answer = [], ""
            for _ in range(TIMES + 1):
                before, began = _milliseconds(processes), time.perf_counter()
                answer = await ATTACKS[name](agent, http)
                answered = (time.perf_counter() - began) * 1e3
                await asyncio.sleep(SETTLING_SECONDS)
                spent = [after - first for after, first in zip(_milliseconds(processes), before, strict=True)]
                costs.append((*spent, answered))
            figures = (statistics.median(column) for column in zip(*costs[1:], strict=True))
            print(f"| {name} | {answer} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")


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
    asyncio.run(measure(options.artifact, options.credentials, options.attacks or list(ATTACKS)))


if __name__ == "__main__":
    main()
